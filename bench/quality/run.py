"""Runs a plan against the service, result by result, into a result file."""

import contextlib
import dataclasses
import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc

import scoring
import tasks
import texts
from client import Client, Coordinator, describe, has_special
from plan import Plan, Setting
from progress import Progress
from results import Results

# A rule that the server does not have, or that lacks a profile: the run goes on without it.
REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.FAILED_PRECONDITION)
USAGE = ("document_tokens", "question_tokens", "completion_tokens", "queue_ms", "question_ms",
         "first_token_ms", "decode_ms", "kept_share", "kept_mass_mean", "kept_mass_min",
         "core_cache_bytes", "full_kv_bytes", "exchanged_bytes")
ASK_WEIGHT = 0.03  # of a prefill's, in what is expected before any question was asked
# They decide what fits, not what is answered.
MEMORY_OPTIONS = ("kv_memory", "question_kv")


@dataclasses.dataclass(frozen=True)
class Job:
    """One document, and which of its questions still miss which answers."""

    task: tasks.Task
    length: int
    number: int
    missing: dict[Setting, list[tuple[int, Setting]]]  # by prefill: (question, ask)


def jobs_of(plan: Plan, results: Results) -> Iterator[Job]:
    prefills, asks = plan.settings()
    for length in plan.lengths:
        for name in plan.tasks:
            task = plan.task(name)
            each = min(plan.per_document, task.questions_most)
            for number in range(-(-plan.questions // each)):
                count = min(each, plan.questions - number * each)
                missing = {}
                for prefill in prefills:
                    wanted = [(question, ask) for question in range(count) for ask in asks
                              # A prompt is prefilled by itself: only once.
                              if not ask.is_prompt or prefill == prefills[0]]
                    wanted = [(question, ask) for question, ask in wanted if not results.has(
                        task=name, length=length, document=number, question=question,
                        prefill=prefill.text, ask=ask.text)]
                    if wanted:
                        missing[prefill] = wanted
                if missing:
                    yield Job(task, length, number, missing)


def ask_weight(job: Job, ask: Setting) -> float:
    return job.length * (1.0 if ask.is_prompt else ASK_WEIGHT)


class Runner:
    def __init__(self, plan: Plan, source: texts.Source, client: Client, results: Results,
                 progress: Progress):
        self.plan, self.source, self.client = plan, source, client
        self.results, self.progress = results, progress
        self.refused: dict[str, str] = {}  # setting -> what the server said
        self.prefix = f"q{hashlib.sha256(str(results.path.resolve()).encode()).hexdigest()[:8]}"

    def run(self) -> None:
        """Everything that is missing. What the server refuses is left out and said in `refused`."""
        jobs = list(jobs_of(self.plan, self.results))
        for job in jobs:
            for prefill, wanted in job.missing.items():
                self.progress.expect(f"prefill {prefill.text}", job.length)
                for _, ask in wanted:
                    self.progress.expect(f"ask {ask.text}", ask_weight(job, ask))
        for job, sample in zip(jobs, self._samples(jobs)):
            self._run_job(job, sample)
        self.progress.finish()

    def _samples(self, jobs: list[Job]) -> Iterator[tasks.Sample]:
        """One for each job. The next is made meanwhile: a long document takes seconds."""
        with futures.ThreadPoolExecutor(1) as maker:
            coming = None
            for job in [*jobs, None]:
                ready, coming = coming, job and maker.submit(self._make_sample, job)
                if ready:
                    yield ready.result()

    def _make_sample(self, job: Job) -> tasks.Sample:
        return tasks.make_sample(job.task, job.length, job.number, self.plan.seed,
                                 self.plan.per_document, self.source,
                                 lambda text: len(self.client.tokenize(text, True)))

    def _run_job(self, job: Job, sample: tasks.Sample) -> None:
        sha256 = hashlib.sha256(sample.text.encode()).hexdigest()
        self.results.check_document(job.task.name, job.length, job.number, sha256)
        for prefill, wanted in job.missing.items():
            document_id = f"{self.prefix}-{sha256[:16]}-{prefill.text.replace(':', '-')}"
            try:
                self._run_prefill(job, sample, prefill, wanted, document_id)
            except BaseException:
                with contextlib.suppress(grpc.RpcError):  # the first failure is the one to tell
                    self.client.delete(document_id)
                raise
            self.client.delete(document_id)

    def _run_prefill(self, job: Job, sample: tasks.Sample, prefill: Setting,
                     wanted: list[tuple[int, Setting]], document_id: str) -> None:
        label = f"{job.task.name} {job.length} #{job.number} {prefill.text}"
        is_asked = True
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            self.progress.advance(f"prefill {prefill.text}", (share - done) * job.length, label)
            done = share

        if any(not ask.is_prompt for _, ask in wanted):
            is_asked = self._prefill(sample, prefill, document_id, advance)
        advance(1.0)
        for question, ask in wanted:
            if is_asked or ask.is_prompt:
                self._ask(sample, question, prefill, ask, document_id)
            self.progress.advance(f"ask {ask.text}", ask_weight(job, ask), label)

    def _refuse(self, setting: str, error: grpc.RpcError) -> None:
        """Note it; any other failure ends the run."""
        if error.code() not in REFUSALS:
            raise error
        if setting not in self.refused:
            self.progress.say(f"{setting}: {describe(error)}")
            self.refused[setting] = describe(error)

    def _prefill(self, sample: tasks.Sample, prefill: Setting, document_id: str,
                 advance: Callable[[float], None]) -> bool:
        """False: refused."""
        setting = f"prefill {prefill.text}"
        if setting in self.refused:
            return False
        header: dict = {"prefill": {"rule": prefill.rule, "keep": prefill.keep}}
        data = sample.text.encode()
        if not sample.task.is_chat:
            ids = self.client.tokenize(sample.prefix, True) + self.client.tokenize(sample.text)
            data = struct.pack(f"<{len(ids)}I", *ids)
            header |= {"encoding": "TOKEN_IDS_U32LE", "raw": True}
        began = time.monotonic()
        try:
            document = self.client.upload(
                document_id, data, lambda done, total: advance(min(done / total, 1.0)), **header)
        except grpc.RpcError as error:
            self._refuse(setting, error)
            return False
        self.results.add_document(
            task=sample.task.name, length=sample.length, document=sample.number,
            sha256=hashlib.sha256(sample.text.encode()).hexdigest(), prefill=prefill.text, tokens=document.token_count, kv_bytes=document.kv_bytes,
            prefill_ms=round(1000 * (time.monotonic() - began)))
        return True

    def _ask(self, sample: tasks.Sample, number: int, prefill: Setting, ask: Setting,
             document_id: str) -> None:
        if ask.text in self.refused:
            return
        question = sample.questions[number]
        attention = {"rule": ask.rule, "keep": ask.keep, "tau": ask.tau,
                     "evict": ask.source == "evict"}
        fields: dict = {"attention": attention, "max_tokens": sample.task.max_tokens}
        if ask.is_prompt:
            if has_special(sample.text):
                raise RuntimeError(f"{sample.task.name}: the text holds what a raw prompt would "
                                   "take for a control token")
            fields |= {"prompt": sample.prompt(question), "raw": True, "parse_special": True}
        else:
            fields |= {"document_id": document_id, "question": question.text,
                       "raw": not sample.task.is_chat, "parse_special": not sample.task.is_chat}
        try:
            answer, finished = self.client.ask(**fields)
        except grpc.RpcError as error:
            self._refuse(ask.text, error)
            return
        self.results.add_answer(
            task=sample.task.name, length=sample.length, document=sample.number, question=number,
            prefill=prefill.text, ask=ask.text, references=list(question.references), answer=answer,
            score=scoring.score(answer, question.references), reason=int(finished.reason),
            **{name: getattr(finished.usage, name) for name in USAGE})


def identity_of(plan: Plan, source: texts.Source, client: Client, server: str | None) -> dict:
    info = client.info()
    options = {name: value for name, value in plan.options if name not in MEMORY_OPTIONS}
    return {"model": info.model.name, "fingerprint": info.model.fingerprint,
            "profile": info.model.profile, "version": info.version, "seed": plan.seed,
            "per_document": plan.per_document, "max_tokens": plan.max_tokens,
            "text": f"{', '.join(source.roots) or 'of Debian'}, part {source.part}",
            "server": server, "options": {} if server else options}


def run_plan(plan: Plan, source: texts.Source, results: Results, where: str,
             is_server: bool) -> dict[str, str]:
    """Against the server at `where`, or one of our own by the program `where`. What was refused.
    RuntimeError: the service failed."""
    coordinator = None
    if not is_server:
        coordinator = Coordinator(where, {"model": plan.model, **dict(plan.options)})
    client = Client(coordinator.address if coordinator else where)
    try:
        results.begin(identity_of(plan, source, client, where if is_server else None))
        runner = Runner(plan, source, client, results, Progress())
        runner.run()
        return runner.refused
    except grpc.RpcError as error:
        if coordinator:
            coordinator.raise_if_interrupted(error)
        log = f"\n{coordinator.log_tail()}" if coordinator else ""
        raise RuntimeError(f"{describe(error)}{log}") from error
    finally:
        client.close()
        if coordinator:
            coordinator.stop()
