"""Which vanished services are forgotten, and when."""

from __future__ import annotations

from fingerpost.proxy.vanished import VanishedServices


def test_a_service_is_forgotten_after_its_time():
    vanished = VanishedServices(10.0)
    assert vanished.update(["a"], at_once=(), now=100.0) == []
    assert vanished.update(["a", "b"], at_once=(), now=105.0) == []
    assert vanished.update(["a", "b"], at_once=(), now=110.0) == ["a"]
    assert vanished.oldest() == "a"
    vanished.discard("a")
    assert vanished.update(["b"], at_once=(), now=115.0) == ["b"]


def test_a_service_that_comes_back_begins_anew():
    vanished = VanishedServices(10.0)
    vanished.update(["a"], at_once=(), now=100.0)
    assert vanished.update([], at_once=(), now=109.0) == []
    assert vanished.oldest() is None
    assert vanished.update(["a"], at_once=(), now=111.0) == []
    assert vanished.update(["a"], at_once=(), now=121.0) == ["a"]


def test_some_need_no_time():
    vanished = VanishedServices(1000.0)
    assert vanished.update(["a", "b"], at_once=("b", "c"), now=0.0) == ["b"]


def test_the_oldest_whatever_the_order():
    vanished = VanishedServices(1000.0)
    vanished.update(["z"], at_once=(), now=0.0)
    vanished.update(["a", "z"], at_once=(), now=1.0)
    assert vanished.oldest() == "z"
