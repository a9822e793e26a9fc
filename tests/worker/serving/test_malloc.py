"""Free memory is returned to the system while a worker serves."""

from __future__ import annotations

import platform

import psutil

from fingerpost.worker.serving import malloc
from tests.support.rig import serving
from tests.support.waiting import until


async def test_what_lies_free_below_something_in_use_goes_back(monkeypatch):
    """100 MB in pieces of 64 KB, and one piece after them that stays; with glibc."""
    if platform.libc_ver()[0] != "glibc":
        assert malloc._glibc() is None
        return
    monkeypatch.setattr(malloc, "_EVERY_S", 0.05)
    async with serving():
        pieces = [b"x" * 65_536 for _ in range(1600)]
        pieces = [kept := pieces[-1]]
        free_of_it = _resident() - 80e6
        await until(lambda: _resident() <= free_of_it)
        assert pieces == [kept]


async def test_a_c_library_without_it_is_no_matter(monkeypatch):
    monkeypatch.setattr(malloc, "_glibc", lambda: None)
    malloc.limit_malloc_arenas()
    async with serving() as rig:
        assert rig.rif == 0


def _resident() -> int:
    return psutil.Process().memory_info().rss
