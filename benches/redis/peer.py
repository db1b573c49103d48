"""A process that takes a lock of another library. `../servers/process.rs` lists its orders and
answers.

`peer.py KIND SOCKET LOCK [EXPIRY]`, the expiry in seconds.
"""

import sys
import time

import redis
import redis_lock

HOLD = 0.002  # of a turn, as in ../servers/player.rs


class Client(redis.Redis):
    """Calls `on_answer` when the first attempt to take a lock has failed."""

    on_answer = None

    def execute_command(self, *words, **options):
        answer = super().execute_command(*words, **options)
        if self.on_answer and words[0] == "SET" and not answer:
            told, self.on_answer = self.on_answer, None
            told()
        return answer


def make(kind, client, name, expiry):
    if kind == "redis-py":
        return client.lock(name, timeout=expiry)
    renews = {"expire": expiry, "auto_renewal": True} if expiry else {}
    return redis_lock.Lock(client, name, **renews)


def say(*words):
    print(*words, flush=True)


def alone(lock, rounds):
    took = []
    for _ in range(rounds):
        begun = time.monotonic_ns()
        lock.acquire()
        lock.release()
        took.append(time.monotonic_ns() - begun)
    took.sort()
    say("took", took[len(took) // 2], took[len(took) * 99 // 100])


def storm(lock, end):
    count = 0
    while True:
        lock.acquire()
        over = time.monotonic_ns() >= end
        lock.release()
        if over:
            break
        count += 1
    say("stormed", count)


def turns(client, lock, pauses):
    told = []
    for pause in pauses:
        time.sleep(pause / 1e6)
        arrived = []
        client.on_answer = lambda: arrived.append(time.monotonic_ns())
        asked = time.monotonic_ns()
        lock.acquire()
        acquired = time.monotonic_ns()
        client.on_answer = None
        time.sleep(HOLD)
        lock.release()
        told += [asked, arrived[0] if arrived else acquired, acquired]
    say("turned", *told)


def main(kind, socket, name, expiry=None):
    # By default redis-py stops waiting for an answer after some seconds, also for that of BLPOP.
    client = Client(unix_socket_path=socket, socket_timeout=None)
    lock = make(kind, client, name, int(expiry) if expiry else None)
    client.ping()
    say("ready")
    for line in sys.stdin:
        order, *numbers = line.split()
        numbers = [int(it) for it in numbers]
        if order == "take":
            client.on_answer = lambda: say("waits")
            lock.acquire()
            client.on_answer = None
            say("held", time.monotonic_ns())
        elif order == "give":
            given = time.monotonic_ns()
            lock.release()
            say("given", given)
        elif order == "alone":
            alone(lock, *numbers)
        elif order == "storm":
            storm(lock, *numbers)
        elif order == "turns":
            turns(client, lock, numbers)
        else:
            raise ValueError(order)


main(*sys.argv[1:])
