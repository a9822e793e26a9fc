"""The settings of routing: their ranges, and what a program with the old flat names is told."""

from __future__ import annotations

from typing import Any

import pytest

from fingerpost.client.routing import (
    EjectionConfig,
    HotColdConfig,
    ProbingConfig,
    RetryConfig,
    RoutingConfig,
    SlowStartConfig,
)
from fingerpost.errors import ConfigurationError


@pytest.mark.parametrize(
    ("config", "field", "value", "remedy"),
    [
        (HotColdConfig, "hot_quantile", 1.5, "a share, above 0 and at most 1"),
        (HotColdConfig, "exploration_rate", 1.5, "a share, 0 or more and at most 1"),
        (HotColdConfig, "cost_tolerance", 0.9, "a factor of 1 or more"),
        (HotColdConfig, "outlier_factor", float("inf"), "a number above 0"),
        (ProbingConfig, "max_probes_per_s", 0.0, "a number above 0"),
        (ProbingConfig, "worker_min_interval_s", -1, "a number 0 or more"),
        (ProbingConfig, "pool_size", "16", "a number above 0"),
        (EjectionConfig, "max_ejected_share", 2, "a share, above 0 and at most 1"),
        (SlowStartConfig, "window_s", 0, "a number above 0"),
        (RetryConfig, "budget_share", -0.1, "a number 0 or more"),
        (RetryConfig, "max_attempts", float("nan"), "a number above 0"),
        (RoutingConfig, "subset_size", 0, "a number above 0"),
        (RoutingConfig, "retries", 3, "a RetryConfig"),
        (RoutingConfig, "policy", None, "a policy's name, or a function that makes a policy"),
    ],
)
def test_a_value_out_of_range_raises_an_error_with_the_remedy(config, field, value, remedy):
    with pytest.raises(ConfigurationError) as caught:
        config(**{field: value})
    assert caught.value.message == f"{config.__name__}: {field}={value!r}: use {remedy}"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (HotColdConfig, "exploration_rate"),
        (ProbingConfig, "worker_min_interval_s"),
        (ProbingConfig, "report_min_interval_s"),
        (RetryConfig, "budget_share"),
        (RetryConfig, "budget_bytes_share"),
    ],
)
def test_zero_turns_some_parts_off(config, field):
    assert getattr(config(**{field: 0}), field) == 0


OLD_FIELDS = {
    "quantile": "hot_cold=HotColdConfig(hot_quantile=...)",
    "tolerance": "hot_cold=HotColdConfig(cost_tolerance=...)",
    "far": "hot_cold=HotColdConfig(outlier_factor=...)",
    "explore": "hot_cold=HotColdConfig(exploration_rate=...)",
    "explore_s": "hot_cold=HotColdConfig(exploration_interval_s=...)",
    "pool_size": "probing=ProbingConfig(pool_size=...)",
    "report_age_s": "probing=ProbingConfig(report_max_age_s=...)",
    "report_every_s": "probing=ProbingConfig(report_min_interval_s=...)",
    "probes_per_request": "probing=ProbingConfig(probes_per_request=...)",
    "probes_per_s": "probing=ProbingConfig(max_probes_per_s=...)",
    "probe_fresh_s": "probing=ProbingConfig(worker_min_interval_s=...)",
    "probe_timeout_s": "probing=ProbingConfig(max_rtt_s=...)",
    "probe_idle_s": "probing=ProbingConfig(idle_timeout_s=...)",
    "probe_ahead": "probing=ProbingConfig(sync_threshold_rtts=...)",
    "probe_wait_s": "probing=ProbingConfig(sync_timeout_s=...)",
    "refused_base_s": "ejection=EjectionConfig(refused_base_ejection_s=...)",
    "refused_cap_s": "ejection=EjectionConfig(refused_max_ejection_s=...)",
    "eject_base_s": "ejection=EjectionConfig(base_ejection_s=...)",
    "eject_cap_s": "ejection=EjectionConfig(max_ejection_s=...)",
    "failures_in_a_row": "ejection=EjectionConfig(consecutive_failures=...)",
    "success_share": "ejection=EjectionConfig(min_success_rate=...)",
    "window_s": "ejection=EjectionConfig(success_rate_window_s=...)",
    "window_requests": "ejection=EjectionConfig(success_rate_min_requests=...)",
    "eject_share": "ejection=EjectionConfig(max_ejected_share=...)",
    "wary_s": "ejection=EjectionConfig(suspect_s=...)",
    "drain_s": "ejection=EjectionConfig(drain_s=...)",
    "busy_s": "ejection=EjectionConfig(default_retry_after_s=...)",
    "busy_cap_s": "ejection=EjectionConfig(max_retry_after_s=...)",
    "ramp_s": "slow_start=SlowStartConfig(window_s=...)",
    "ramp_floor": "slow_start=SlowStartConfig(min_share=...)",
    "attempts": "retries=RetryConfig(max_attempts=...)",
    "budget_share": "retries=RetryConfig(budget_share=...)",
    "budget_per_s": "retries=RetryConfig(budget_min_per_s=...)",
    "budget_ttl_s": "retries=RetryConfig(budget_ttl_s=...)",
    "budget_bytes_share": "retries=RetryConfig(budget_bytes_share=...)",
    "backoff_base_s": "retries=RetryConfig(backoff_base_s=...)",
    "backoff_cap_s": "retries=RetryConfig(backoff_max_s=...)",
}


@pytest.mark.parametrize("old", OLD_FIELDS)
def test_an_old_flat_field_raises_an_error_with_its_new_place(old):
    old_setting: dict[str, Any] = {old: 1}
    with pytest.raises(ConfigurationError) as caught:
        RoutingConfig(**old_setting)
    assert caught.value.message == f"RoutingConfig({old}=...): use RoutingConfig({OLD_FIELDS[old]})"
