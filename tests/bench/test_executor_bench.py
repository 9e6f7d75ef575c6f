"""The benchmark of executors, on the processor."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
import torch

from tailrace.bench import executor
from tailrace.bench.executor import Report
from tailrace.bench.limits import Limits
from tailrace.bench.networks import Network, Work, networks

NETWORKS = networks()


def by_name(network: Network) -> str:
    return network.name


@pytest.mark.parametrize("network", NETWORKS, ids=by_name)
def test_networks_are_the_same_in_both_engines(network: Network) -> None:
    rows = network.rows(np.random.default_rng(3), 5)
    session = ort.InferenceSession(network.to_onnx(), providers=["CPUExecutionProvider"])
    program = torch.export.load(io.BytesIO(network.to_program())).module()
    with torch.inference_mode():
        wanted = network.module(torch.from_numpy(rows)).numpy()
        exported = program(torch.from_numpy(rows)).numpy()
    assert (5,) == wanted.shape
    assert np.ptp(wanted) > 1e-3
    np.testing.assert_allclose(wanted, exported, atol=1e-6)
    np.testing.assert_allclose(wanted, session.run(["probability"], {"rows": rows})[0], atol=1e-6)


@pytest.mark.parametrize(
    ("once", "again"), [*zip(NETWORKS, networks(), strict=True)], ids=["mlp", "click", "transformer"]
)
def test_networks_are_alike_for_every_call(once: Network, again: Network) -> None:
    rows = once.rows(np.random.default_rng(3), 5)
    np.testing.assert_array_equal(rows, again.rows(np.random.default_rng(3), 5))
    with torch.inference_mode():
        assert torch.equal(once.module(torch.from_numpy(rows)), again.module(torch.from_numpy(rows)))


def test_least_time_is_set_by_the_scarcer_resource() -> None:
    work = Work(flops_per_row=10.0, bytes_per_row=1.0, bytes_per_batch=100.0)
    assert (10.0, "bandwidth") == work.seconds(100, flops_per_s=1_000.0, bytes_per_s=20.0)
    assert (1.0, "flops") == work.seconds(100, flops_per_s=1_000.0, bytes_per_s=400.0)


@pytest.mark.parametrize("engine", executor.ENGINES)
def test_benchmark_reports_every_figure(
    engine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "measured_limits", lambda device: Limits(1e12, 1e11))
    monkeypatch.setattr(executor, "ROUND_S", 0.0)
    chosen = ["--network", "mlp", "--engine", engine, "--rows", "1", "--rows", "20", "--json"]
    assert 0 == executor.main(chosen)
    report = msgspec.json.decode(capsys.readouterr().out, type=Report)
    [case] = report.cases
    assert ("mlp", engine) == (case.network, case.engine)
    assert [1, 20] == [each.rows for each in case.figures]
    for each in case.figures:
        assert each.rows == pytest.approx(each.rows_per_s * each.p50_ms / 1e3)
        assert 0 < each.p50_ms <= each.p99_ms
        assert each.ratio > 0
        assert 0 < each.share_of_limit


def test_benchmark_fails_where_a_score_depends_on_its_batch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "measured_limits", lambda device: Limits(1e12, 1e11))
    monkeypatch.setattr(executor, "ROUND_S", 0.0)
    monkeypatch.setattr(executor, "_largest_difference", lambda network, runs: 1e-5)
    assert 1 == executor.main(["--network", "mlp", "--engine", "onnx", "--rows", "1"])
    assert "differs from the row alone by 1e-05" in capsys.readouterr().out
