"""What this process is to the kernel: its title, its end with the parent, who it runs as, how its threads are scheduled."""

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def _prctl(option, value):
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent():
    """Linux: SIGKILL when the parent ends, even while C code holds the GIL. Setuid clears it: to be called after."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def let_others_finish():
    """Linux: when the calling thread is woken it waits until the processor is free, instead of taking it from whoever runs.

    A front that sends a request would lose the processor in the middle of its turn, and come back to cold caches. Its share of
    the processor stays the same (SCHED_BATCH of sched(7)); what it starts inherits that.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else somebody has said how it is to run
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass  # a sandbox, or a C library without it: it is only slower


def set_title(title):
    """Shows `title` in ps (Linux; elsewhere nothing happens).

    By the setproctitle of the app, if it has one: that finds the memory of argv by what Python was started with, and would not any
    more after us, when the app sets a title of its own.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        from setproctitle import setproctitle
    except ImportError:
        _write_over_argv(title.encode())
    else:
        setproctitle(title)
    _prctl(_PR_SET_NAME, title.replace(": ", "-").encode()[:15])


def _write_over_argv(title):
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: proc(5), fields 48 and 49
    except (OSError, IndexError, ValueError):
        return
    room = end - start - 1
    if room > 0:
        ctypes.memmove(start, title[:room].ljust(room + 1, b"\0"), room + 1)


def _user_name(user_id):
    """None for a number that no account has, and for None."""
    try:
        return None if user_id is None else pwd.getpwuid(user_id).pw_name
    except KeyError:
        return None


def drop_privileges(user_id, group_id, with_groups=False):
    """Becomes user and group (numbers, or None to stay); `with_groups`: also of the other groups that the user is in."""
    name = _user_name(user_id) if with_groups else None
    if name is not None:
        group = os.getegid() if group_id is None else group_id
        # A worker of a mold that has become the user has the groups, and may not set them.
        if set(os.getgroups()) != set(os.getgrouplist(name, group)):
            os.initgroups(name, group)
    if group_id is not None and group_id != os.getegid():
        if name is None:
            os.setgroups([])
        os.setgid(group_id)
    if user_id is not None and user_id != os.geteuid():
        os.setuid(user_id)
