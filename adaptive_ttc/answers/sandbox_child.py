"""Runs one untrusted program with its tests: a script of its own process, which imports nothing of this package.

Standard input is a file with one line of JSON, ``{"program", "tests", "memory", "seconds"}``; the one argument is the
number of a pipe with a secret. The process first gives up what the program does not need: processor time, memory and
file sizes by limits; and by a system call filter (seccomp, which needs no privilege) everything but a list of calls, so
that no socket is opened, no process started or signalled, and no file changed. Then it runs program and tests in one
namespace, and writes one line of JSON to standard output: ``{"passed": secret}``, ``{"failed": why}``, or
``{"refused": why}`` where it could not give that up.

The secret is read from the pipe only after the tests have passed: a program that ends the process early, or prints what
it likes, has not passed.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import struct
import sys
import types

# system call:number on x86-64:number on arm64; Linux, from the kernel's headers
_CALLS = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 preadv:295:69 preadv2:327:286 pwrite64:18:68
close:3:57 close_range:436:436 fstat:5:80 newfstatat:262:79 stat:4:- lstat:6:- statx:332:291 lseek:8:62
mmap:9:222 munmap:11:215 mremap:25:216 mprotect:10:226 madvise:28:233 brk:12:214 mincore:27:232
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigtimedwait:128:137
rt_sigsuspend:130:133 sigaltstack:131:132 access:21:- faccessat:269:48 faccessat2:439:439 pipe:22:- pipe2:293:59
select:23:- pselect6:270:72 poll:7:- ppoll:271:73 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21
epoll_wait:232:- epoll_pwait:281:22 eventfd2:290:19 dup:32:23 dup2:33:- dup3:292:24 getdents:78:-
getdents64:217:61 getcwd:79:17 readlink:89:- readlinkat:267:78 statfs:137:43 fstatfs:138:44 fadvise64:221:223
getpid:39:172 gettid:186:178 getppid:110:173 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
getresuid:118:148 getresgid:120:150 getgroups:115:158 getpgrp:111:- getpgid:121:155 getsid:124:156 uname:63:160
sysinfo:99:179 getrusage:98:165 times:100:153 clock_gettime:228:113 clock_getres:229:114 clock_nanosleep:230:115
nanosleep:35:101 gettimeofday:96:169 time:201:- getrandom:318:278 getcpu:309:168 futex:202:98
set_robust_list:273:99 get_robust_list:274:100 rseq:334:293 membarrier:324:283 sched_yield:24:124
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 get_mempolicy:239:236 getpriority:140:141 exit:60:93 exit_group:231:94
getrlimit:97:163 restart_syscall:219:128 setitimer:38:103 getitimer:36:102 alarm:37:- wait4:61:260 umask:95:166
"""
_CLONE, _CLONE3, _OPEN, _OPENAT = (56, 220), (435, 435), (2, None), (257, 56)
_TGKILL, _PRLIMIT, _IOCTL, _FCNTL = (234, 131), (302, 261), (16, 29), (72, 25)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_CLONE_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0x400000  # the last is O_TMPFILE
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)  # duplicating a file, its flags; none by which a signal is sent

_LOAD, _EQUAL, _ANY_BIT, _ABOVE, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _argument(number: int, *, high: bool = False) -> int:
    return 16 + 8 * number + 4 * high


def _filter(machine: str) -> bytes:
    """The filter: instructions of Berkeley packet filters over ``struct seccomp_data``."""
    column, architecture = _ARCHITECTURES[machine]
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]

    def case(numbers: tuple[int | None, int | None], *body: tuple[int, int, int, int]) -> None:
        if (number := numbers[column]) is not None:
            code.extend([(_EQUAL, 0, len(body), number), *body])

    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL | errno.EPERM)
    for entry in _CALLS.split():
        numbers = tuple(None if number == "-" else int(number) for number in entry.split(":")[1:])
        case((numbers[0], numbers[1]), allow)
    case(_CLONE, (_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, _CLONE_THREAD), allow, deny)
    case(_CLONE3, (_RETURN, 0, 0, _FAIL | errno.ENOSYS))  # its flags cannot be seen; libraries fall back to clone
    case(_OPEN, (_LOAD, 0, 0, _argument(1)), (_ANY_BIT, 0, 1, _WRITING), deny, allow)
    case(_OPENAT, (_LOAD, 0, 0, _argument(2)), (_ANY_BIT, 0, 1, _WRITING), deny, allow)
    case(_TGKILL, (_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 1, os.getpid()), allow, deny)
    reading = ((_LOAD, 0, 0, _argument(2)), (_EQUAL, 0, 3, 0), (_LOAD, 0, 0, _argument(2, high=True)))
    case(_PRLIMIT, *reading, (_EQUAL, 0, 1, 0), allow, deny)
    case(_IOCTL, (_RETURN, 0, 0, _FAIL | errno.ENOTTY))
    commands = [(_EQUAL, len(_FCNTL_COMMANDS) - place, 0, one) for place, one in enumerate(_FCNTL_COMMANDS)]
    case(_FCNTL, (_LOAD, 0, 0, _argument(1)), *commands, deny, allow)
    code.append(deny)
    return b"".join(struct.pack("HBBI", *one) for one in code)


def confine(memory: int, seconds: int) -> None:
    """Give up, for good, what the program does not need. OSError: this system does not let it."""
    library = ctypes.CDLL(None, use_errno=True)
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # the first ends it by a signal that tells why
    instructions = ctypes.create_string_buffer(_filter(os.uname().machine))
    program = _Program((len(instructions) - 1) // 8, ctypes.addressof(instructions))
    for arguments in (
        (_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0),
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0),
    ):
        if library.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the system call filter cannot be installed")


def check() -> None:
    """Try what must not work. OSError: it did."""
    for attempt in (socket.socket, os.fork, lambda: os.open("probe", os.O_WRONLY | os.O_CREAT)):
        try:
            attempt()
        except PermissionError:
            continue
        raise OSError(0, f"{getattr(attempt, '__name__', 'opening a file')} was not refused")


def main() -> None:
    """Run what standard input holds, and say how it ended."""
    task = json.loads(sys.stdin.buffer.readline())
    secret, output = int(sys.argv[1]), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    read, write, leave, dumps = os.read, os.write, os._exit, json.dumps

    def say(**told: str) -> None:
        write(output, dumps(told).encode("ascii", "backslashreplace")[:4000])
        leave(0)

    try:
        confine(task["memory"], task["seconds"])
        check()
    except (OSError, KeyError, ValueError) as error:
        say(refused=f"{type(error).__name__}: {error}")
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    try:
        exec(compile(task["program"], "answer.py", "exec"), module.__dict__)
        exec(compile(task["tests"], "tests.py", "exec"), module.__dict__)
    except BaseException as error:
        say(failed=f"{type(error).__name__}: {error}"[:300])
    say(passed=read(secret, 64).decode("ascii"))


if __name__ == "__main__":
    main()
