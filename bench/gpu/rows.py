"""The rows of the table: which measurement stands against which, and what is wanted.

A measurement's key is "PROGRAM SIZE [SETTING] MEASURE"; jobs.py says who measures it. Two are compared
as FASTER (times, peer / ours), as RATE (ours / peer), or ours stands alone against a limit (MOST)."""

import statistics
from dataclasses import dataclass

FASTER, RATE, MOST = "faster", "rate", "most"
DENSE, KEEP_10, KEEP_3 = "dense:1/dense:1/1", "block:0.1/pooled:0.1/1", "block:0.03/pooled:0.03/1"
KEEP_3_BATCH, DENSE_BATCH = "block:0.03/pooled:0.03/16", "block:0.03/dense:1/16"


@dataclass(frozen=True)
class Row:
    name: str
    text: str
    compare: str
    ours: str  # key
    peer: str | None = None
    bar: float | None = None
    aim: float | None = None
    gpus: int = 1


def all_rows(tokens, layer_tokens, group_tokens, chunk):
    """For documents of `tokens`; of one layer at `layer_tokens`; on two GPUs of `group_tokens`. chunk: of
    the kernels' rows."""
    tca, hf = f"tca1 {tokens}", f"transformers {tokens}"
    two, million = f"tca2 {tokens}", f"tca2 {group_tokens}"
    layer, cudnn, flash = f"layer {tokens}", f"cudnn {tokens} time", f"flash {tokens} time"
    k = f"{tokens // 1024}K"
    return [
        Row("prefill-dense", f"dense prefill {k}, against transformers with SDPA", FASTER,
            f"{tca} {DENSE} prefill", f"{hf} prefill", 1.1, 1.2),
        Row("prefill-10", f"TCA prefill {k}, keep 10 %, against the same", FASTER,
            f"{tca} {KEEP_10} prefill", f"{hf} prefill", 2.8, 3.1),
        Row("prefill-3", f"TCA prefill {k}, keep 3 %, against the same", FASTER,
            f"{tca} {KEEP_3} prefill", f"{hf} prefill", 3.2, 3.5),
        Row("attention-dense", f"attention of a {k} prefill, one layer, dense chunks, against cuDNN's "
            "one causal call", FASTER, f"{layer} 1 time", cudnn),
        Row("attention-10", "the same with selection, keep 10 %", FASTER, f"{layer} 0.1 time", cudnn,
            5.5, 6.2),
        Row("attention-3", "the same, keep 3 %", FASTER, f"{layer} 0.03 time", cudnn, 9, 11),
        Row("attention-10-flash", "keep 10 %, against FlashAttention-2", FASTER, f"{layer} 0.1 time",
            flash),
        Row("attention-3-flash", "keep 3 %, against FlashAttention-2", FASTER, f"{layer} 0.03 time",
            flash),
        Row("attention-1m", f"attention of a {layer_tokens:,} token prefill, one layer, keep 3 %, "
            "against cuDNN dense (chunks at a few positions, integrated)", FASTER,
            f"layer {layer_tokens} 0.03 time", f"cudnn-chunks {layer_tokens} time", 20, 28),
        Row("gathered", "attention over gathered ragged rows with merge, against cuDNN dense at equal "
            "FLOPs", RATE, f"chunk {tokens} 0.1 rate",
            f"cudnn-full {chunk}x{int(0.1 * tokens)} rate", .85, .95),
        Row("selection-10", f"scores + selection + gather, share of a chunk's sparse attention at {k}, "
            f"C = {chunk}, keep 10 %", MOST, f"chunk {tokens} 0.1 share", None, 20, 8),
        Row("selection-3", "the same, keep 3 %", MOST, f"chunk {tokens} 0.03 share", None, 20, 8),
        Row("decode-dense", f"decode at {k}, dense, beside transformers", MOST,
            f"{tca} {DENSE} decode", f"{hf} decode", 9, 8.2),
        Row("decode-10", f"decode at {k}, core cache 10 %", MOST, f"{tca} {KEEP_10} decode",
            f"{hf} decode", 5.2, 4.6),
        Row("decode-3", f"decode at {k}, core cache 3 %", MOST, f"{tca} {KEEP_3} decode",
            f"{hf} decode", 4.8, 4.3),
        Row("batch-3", f"16 questions at once over one {k} document, keep 3 %, against one", FASTER,
            f"{tca} {KEEP_3_BATCH} decode", f"{tca} {KEEP_3} decode", 8, 10.5),
        Row("batch-dense", "the same, dense", FASTER, f"{tca} {DENSE_BATCH} decode",
            f"{tca} {DENSE} decode", 8, 12),
        Row("question", f"question pass (64 tokens over {k}, scores, selection, gather)", MOST,
            f"{tca} {KEEP_3} question", None, 35, 20),
        Row("two-dense", f"two GPUs against one, dense prefill {k}", FASTER, f"{two} {DENSE} prefill",
            f"{tca} {DENSE} prefill", 1.85, 1.95, 2),
        Row("two-10", f"two GPUs against one, prefill {k}, keep 10 %", FASTER,
            f"{two} {KEEP_10} prefill", f"{tca} {KEEP_10} prefill", 1.75, 1.9, 2),
        Row("two-1m", f"prefill of {group_tokens:,} tokens, two GPUs, keep 3 %", MOST,
            f"{million} {KEEP_3} prefill", None, 32, 25, 2),
        Row("two-1m-question", f"first answer token over {group_tokens:,} READY tokens, two GPUs (64 "
            "tokens, without gRPC)", MOST, f"{million} {KEEP_3} question", None, 200, 80, 2),
    ]


def _summary(measured):
    runs = measured["runs"]
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs),
            "unit": measured["unit"], "note": measured.get("note", "")}


def figure(row, measured, errors):
    """One line of the result; measured: by key, errors: by item, a key without its measure."""
    missing = [key for key in (row.ours, row.peer) if key is not None and key not in measured]
    result = {"figure": row.name, "text": row.text, "bar": row.bar, "aim": row.aim,
              "ours": None, "peer": None, "ratio": None, "holds": None, "error": "; ".join(
                  f"{key}: {errors.get(key.rsplit(' ', 1)[0], 'not measured')}" for key in missing)}
    if row.ours not in measured:
        return result
    result |= {"ours": _summary(measured[row.ours]), "clocks": measured[row.ours]["clocks"]}
    if row.peer in measured:
        result |= {"peer": _summary(measured[row.peer]), "peer_clocks": measured[row.peer]["clocks"]}
        ratio = result["peer"]["median"] / result["ours"]["median"]
        result["ratio"] = 1 / ratio if row.compare == RATE else ratio
    if row.bar is not None and row.compare == MOST:
        result["holds"] = result["ours"]["median"] <= row.bar
    elif row.bar is not None and result["ratio"] is not None:
        result["holds"] = result["ratio"] >= row.bar
    return result


def _bar(row, one):
    if row.bar is None:
        return ""
    unit = f" {one['ours']['unit']}" if row.compare == MOST and one["ours"] else ""
    sign = "<=" if row.compare == MOST else ">="
    times = "" if row.compare == MOST else "x"
    word = {True: "holds", False: "**missed**", None: "?"}[one["holds"]]
    return f"{sign} {row.bar:g}{times}{unit}, aim {row.aim:g}{times}: {word}"


def _cells(row, one):
    ours, peer = one["ours"], one["peer"]
    clocks = one.get("clocks", {})
    return (row.text,
            f"{ours['median']:.4g} ({ours['min']:.4g}, {ours['max']:.4g}) {ours['unit']}" if ours
            else "failed",
            f"{peer['median']:.4g} {peer['unit']}{', ' + peer['note'] if peer['note'] else ''}" if peer
            else "failed" if row.peer else "",
            f"{one['ratio']:.2f}x" if one["ratio"] else "", _bar(row, one),
            f"{clocks['sm_mhz']:.0f} / {clocks['memory_mhz']:.0f}" if clocks else "")


def markdown(rows, figures, machine):
    lines = [f"{machine['gpu']}, driver {machine['driver']}; medians (least, most).", "",
             "| figure | tca | peer | ratio | wanted | SM / memory MHz |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(_cells(row, one)) + " |" for row, one in zip(rows, figures)]
    lines += ["", *(f"- {one['figure']}: {one['error']}" for one in figures if one["error"])]
    return "\n".join(lines).rstrip() + "\n"
