"""Python's pool as a peer. The scenes, and how they are asked for, are those of src/scenes and src/serve.rs."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

WIDTH = int(sys.argv[2])
POOL = ThreadPoolExecutor(WIDTH)

stripes = []
local = threading.local()


def tick(a, b, c):
    """A task: every thread counts for itself."""
    try:
        stripe = local.stripe
    except AttributeError:
        stripe = local.stripe = [0]
        stripes.append(stripe)
    stripe[0] += 1


def compute(a, b, c):
    return a


def counted():
    return sum(stripe[0] for stripe in stripes)


def wait_for(target):
    while counted() < target:
        time.sleep(50e-6)


def now():
    return time.perf_counter_ns()


def submit_ticks(pool, tasks):
    for n in range(tasks):
        pool.submit(tick, n, n + 1, n + 2)


def burst(tasks):
    target = counted() + tasks
    start = now()
    submit_ticks(POOL, tasks)
    wait_for(target)
    return [(now() - start) / tasks]


def multi(tasks):
    producers = 4
    target = counted() + tasks // producers * producers
    ready = threading.Barrier(producers)
    starts = []

    def produce():
        ready.wait()
        starts.append(now())
        submit_ticks(POOL, tasks // producers)

    threads = [threading.Thread(target=produce) for _ in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(target)
    return [(now() - min(starts)) / tasks]


def node(below, level, number):
    if below:
        POOL.submit(node, below - 1, level + 1, 2 * number)
        POOL.submit(node, below - 1, level + 1, 2 * number + 1)
    tick(below, level, number)


def fan_out(depth):
    nodes = 2 ** (depth + 1) - 1
    target = counted() + nodes
    start = now()
    POOL.submit(node, depth, 0, 1)
    wait_for(target)
    return [(now() - start) / nodes]


def round_trip(n):
    start = now()
    POOL.submit(compute, n, n + 1, n + 2).result()
    return now() - start


def hot(samples):
    for n in range(10):
        round_trip(n)
    return [round_trip(n) for n in range(samples)]


def cold(samples):
    def idle_then_call(n):
        time.sleep(1e-3)
        return round_trip(n)

    round_trip(0)
    return [idle_then_call(n) for n in range(samples)]


def spawn_join(tasks):
    start = now()
    handles = [POOL.submit(compute, n, n + 1, n + 2) for n in range(tasks)]
    sum(handle.result() for handle in handles)
    return [(now() - start) / tasks]


def work(steps):
    x = 0x9E3779B97F4A7C15
    for _ in range(steps):
        x = (x * 5 + 1) & 0xFFFFFFFF


def calibrated_steps():
    """Steps that take about 5 µs."""

    def trial():
        start = now()
        work(10_000)
        return now() - start

    return max(1, round(10_000 * 5_000 / min(trial() for _ in range(20))))


def worked(steps, b, c):
    work(steps)
    tick(steps, b, c)


def mixed(tasks, calibrated=[]):
    if not calibrated:
        calibrated.append(calibrated_steps())
    [steps] = calibrated
    start = now()
    for n in range(tasks):
        worked(steps, n, n)
    serial = now() - start
    target = counted() + tasks
    start = now()
    for n in range(tasks):
        POOL.submit(worked, steps, n, n)
    wait_for(target)
    return [serial / (now() - start)]


def create(pools):
    start = now()
    for n in range(pools):
        pool = ThreadPoolExecutor(WIDTH)
        pool.submit(compute, n, n + 1, n + 2).result()
        pool.shutdown()
    return [(now() - start) / pools]


def drain(tasks):
    pool = ThreadPoolExecutor(WIDTH)
    arrived = threading.Barrier(WIDTH + 1)
    gate = threading.Event()

    def stand():
        arrived.wait()
        gate.wait()

    for _ in range(WIDTH):
        pool.submit(stand)
    arrived.wait()
    start = now()
    submit_ticks(pool, tasks)
    opened = now()
    gate.set()
    pool.shutdown()
    ended = now()
    return [(ended - opened) / tasks, (ended - start) / tasks]


SCENES = {
    "burst": burst,
    "multi": multi,
    "fan-out": fan_out,
    "hot": hot,
    "cold": cold,
    "spawn-join": spawn_join,
    "mixed": mixed,
    "create": create,
    "drain": drain,
}

for line in sys.stdin:
    scene, number = line.split()
    figures = SCENES[scene](int(number)) if scene in SCENES else []
    print(" ".join(f"{figure:.3f}" for figure in figures) or "-", flush=True)
