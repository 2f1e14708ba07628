"""What is left when processes are killed: clients hear UNAVAILABLE, the coordinator says why and ends or
starts again (--restarts), no process lives on, and no document is lost.

Usage: test_lost_group.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest

from service import LIMIT_S, Service, details_of, health_pb2, pb

import corpus
import grpc

PROGRAM = sys.argv[1]
END_S = 120  # for processes to end: they need about 4 s, on a machine with nothing else to do


def is_alive(process):
    try:
        text = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"  # one that nobody has waited for has ended


class LostGroup(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tca-e2e-")
        self.addCleanup(self.folder.cleanup)
        self.log = open(os.path.join(self.folder.name, "log"), "w+b")
        self.addCleanup(self.log.close)
        self.state = os.path.join(self.folder.name, "state")

    def start(self, **settings):
        one = Service(PROGRAM, state=self.state, stderr=self.log, **settings)
        self.addCleanup(one.clean)
        return one

    def start_working(self, **settings):
        """A service in the middle of a prefill, and a call that says so."""
        one = self.start(**settings)
        one.upload(b"Some text to talk about.", document_id="small")
        self.data = corpus.build_bytes(150_000, seed=5).text.encode()
        call = one.upload_stream(self.data, document_id="long")
        for event in call:
            if event.document.state == pb.Document.PREFILLING and event.progress.tokens_done > 0:
                return one, call
        return self.fail("the prefill ended")

    def check_all_end(self, processes):
        deadline = time.monotonic() + END_S
        while left := [process for process in processes if is_alive(process)]:
            self.assertLess(time.monotonic(), deadline, f"processes live on: {left}")
            time.sleep(0.05)

    def unavailable(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn("lost", caught.exception.details())
        self.assertIn("RetryInfo", details_of(caught.exception))

    def loses(self, name, which):
        """Kill one process of that name in the middle of everything."""
        one, upload = self.start_working()
        asked = one.ask_stream("small", "Go on.", max_tokens=8000, ignore_eos=True)
        next(event for event in asked if event.HasField("delta"))
        waiting = one.ask_stream("long", "Who?")  # for the prefill
        next(waiting)
        watched = one.watch("long")
        next(watched)
        health, heard = [], threading.Event()

        def watch_health():
            try:
                for answer in one.health.Watch(health_pb2.HealthCheckRequest(), timeout=LIMIT_S):
                    health.append(answer.status)
                    heard.set()
            except grpc.RpcError:
                pass

        listener = threading.Thread(target=watch_health)
        listener.start()
        self.assertTrue(heard.wait(LIMIT_S))
        processes = one.processes()
        victims = one.processes(name)
        self.assertTrue(victims, processes)
        os.kill(victims[which], signal.SIGKILL)

        for call in (upload, asked, waiting, watched):
            self.unavailable(call)
        listener.join(LIMIT_S)
        self.assertEqual(health, [health_pb2.HealthCheckResponse.SERVING,
                                  health_pb2.HealthCheckResponse.NOT_SERVING])
        self.assertEqual(one.process.wait(END_S), 1)
        self.check_all_end(processes)
        self.log.seek(0)
        self.assertIn("the worker group is lost", self.log.read().decode())

        again = self.start(wait_ready=False)
        listed = {document.document_id: document for document in again.list().documents}
        self.assertEqual(set(listed), {"small", "long"})
        self.assertEqual(listed["long"].byte_count, len(self.data))
        self.assertNotEqual(listed["long"].state, pb.Document.FAILED)
        self.assertEqual(list(again.watch("small"))[-1].document.state, pb.Document.READY)
        self.assertEqual(again.stop(), 0)

    def test_the_first_rank_is_killed(self):
        self.loses("tca-worker", 0)

    def test_the_last_rank_is_killed(self):
        self.loses("tca-worker", -1)

    def test_mpirun_is_killed(self):
        self.loses("mpirun", 0)

    def free_port(self):
        for port in random.sample(range(20000, 32000), 100):  # none that the system gives to others
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass
        return self.fail("no port is free")

    def test_a_lost_group_is_started_again(self):
        one = self.start(restarts=2, listen=f"127.0.0.1:{self.free_port()}")
        one.upload(b"Some text to talk about.", document_id="small")
        for _ in range(2):
            processes = one.processes()
            os.kill(one.processes("tca-worker")[-1], signal.SIGKILL)
            one.wait_line("ready")
            self.check_all_end(processes)
            name = pathlib.Path("/proc", str(one.process.pid), "comm").read_text(encoding="utf-8")
            self.assertEqual(name, "tca-coordinator\n")
            events = list(one.watch("small"))
            self.assertEqual(events[-1].document.state, pb.Document.READY)
            self.assertGreater(len(one.ask("small", "What?", max_tokens=3).token_ids), 0)
        os.kill(one.processes("mpirun")[0], signal.SIGKILL)  # once too often, and too soon
        self.assertEqual(one.process.wait(END_S), 1)

    def test_without_a_port_of_its_own_it_ends(self):
        one = self.start(restarts=2)
        os.kill(one.processes("tca-worker")[-1], signal.SIGKILL)
        self.assertEqual(one.process.wait(END_S), 1)
        self.log.seek(0)
        self.assertIn("127.0.0.1:0 would be another port", self.log.read().decode())

    def test_a_stop_comes_before_a_restart(self):
        one = self.start(restarts=2, listen=f"127.0.0.1:{self.free_port()}")
        one.upload(b"Some text to talk about.", document_id="small")
        asked = one.ask_stream("small", "Go on.", max_tokens=8000, ignore_eos=True)
        next(event for event in asked if event.HasField("delta"))
        one.process.send_signal(signal.SIGTERM)
        self.wait_drain(one)
        os.kill(one.processes("tca-worker")[-1], signal.SIGKILL)
        self.assertEqual(one.process.wait(END_S), 1)

    def wait_drain(self, one):
        deadline = time.monotonic() + END_S
        while one.is_serving("tca.v1.Documents"):
            self.assertLess(time.monotonic(), deadline, "it does not drain")
            time.sleep(0.05)

    def test_the_coordinator_is_killed(self):
        one, call = self.start_working(workers=3)
        processes = one.processes()
        self.assertEqual(len(one.processes("tca-worker")), 3)
        one.process.kill()
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        one.wait()
        self.check_all_end(processes)

    def test_a_stop_leaves_no_process(self):
        one, call = self.start_working()
        processes = one.processes()
        self.assertEqual(one.stop(), 0)
        with self.assertRaises(grpc.RpcError):
            list(call)
        self.check_all_end(processes)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
