"""Clocks and power of the GPUs, by nvidia-smi every second in the background."""

import shutil
import statistics
import subprocess
import threading
import time

FIELDS = ("utilization.gpu", "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
NAMES = ("sm_mhz", "memory_mhz", "power_w", "celsius")
BUSY_PERCENT = 50


def _query(fields, *options):
    return ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *options]


def _numbers(line):
    """The values of a line; None: one of them is not known."""
    try:
        return [float(value) for value in line.split(",")]
    except ValueError:
        return None


def machine():
    """What figures depend on."""
    if shutil.which("nvidia-smi") is not None:
        found = subprocess.run(_query(("name", "driver_version")), capture_output=True, text=True,
                               check=False)
        if found.returncode == 0 and found.stdout:
            gpus = found.stdout.splitlines()
            name, driver = gpus[0].split(", ")
            return {"gpu": f"{len(gpus)} x {name}", "driver": driver}
    return {"gpu": "no GPU", "driver": "none"}


class Clocks:
    def __init__(self):
        self._samples = []  # (when, values)
        self._process = None
        if shutil.which("nvidia-smi") is not None:
            self._process = subprocess.Popen(_query(FIELDS, "--loop=1"), stdout=subprocess.PIPE,
                                             stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        for line in self._process.stdout:
            values = _numbers(line)
            if values is not None:
                self._samples.append((time.monotonic(), values))

    def between(self, start, end):
        """Medians over the samples of GPUs that were busy then; {}: there were none."""
        rows = [values[1:] for when, values in list(self._samples)
                if start <= when <= end and values[0] >= BUSY_PERCENT]
        return dict(zip(NAMES, map(statistics.median, zip(*rows))))

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
