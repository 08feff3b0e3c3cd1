"""`lediflow.doctor`: what a machine lacks is found, with the exit status of the worst finding."""

import json
from types import SimpleNamespace

import pytest
import torch
from harness.commands import invoke

from lediflow import doctor
from lediflow.doctor import hardware, software, system
from lediflow.doctor.finding import Finding, Level, ok
from lediflow.nn.neighborhood import ROUTES

CPU = torch.device("cpu")
SLOW = Finding("disk", Level.WARNING, "is full", "free some space")
BROKEN = Finding("GPU 3", Level.FAULT, "computes 5 for 2 + 2", "use another node", is_of_node=True)
WRONG_BUILD = Finding("PyTorch", Level.FAULT, "a build for CPUs", "install another")


@pytest.fixture
def finds(monkeypatch):
    """Say what all checks find."""
    monkeypatch.setenv("SLURMD_NODENAME", "gpu07")
    return lambda *findings: monkeypatch.setattr(
        doctor, "all_findings", lambda: [ok("memory", "plenty"), *findings]
    )


@pytest.mark.parametrize(("findings", "status"), [([], 0), ([SLOW], 1), ([SLOW, BROKEN], 2)])
def test_the_exit_status_is_that_of_the_worst_finding(finds, findings, status):
    finds(*findings)
    said = invoke("doctor")
    assert said.status == status
    for finding in findings:
        assert f"{finding.name}" in said.out and f"-> {finding.advice}" in said.out


def test_the_findings_as_json(finds):
    finds(BROKEN)
    found = json.loads(invoke("doctor", "--json").out)
    assert (found["node"], found["status"], [row["level"] for row in found["findings"]]) == (
        "gpu07",
        "fault",
        ["ok", "fault"],
    )
    assert found["findings"][1]["advice"] == "use another node"


@pytest.mark.parametrize(
    ("finding", "names"), [(BROKEN, ["gpu06", "gpu07"]), (WRONG_BUILD, ["gpu06"]), (SLOW, ["gpu06"])]
)
def test_nodes_with_faults_of_their_own_are_listed_once(finds, tmp_path, finding, names):
    listed = tmp_path / "bad_nodes"
    listed.write_text("gpu06\n")
    finds(finding)
    for _ in range(2):
        invoke("doctor", "--exclude-file", listed)
    assert listed.read_text().split() == names


def test_a_build_for_cpus_on_a_machine_with_gpus_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    assert software.check_pytorch(tmp_path).level is Level.OK
    (tmp_path / "nvidia0").touch()
    assert "a build for CPUs, on a machine with NVIDIA GPUs" in software.check_pytorch(tmp_path).found
    monkeypatch.setattr("torch.version.cuda", "13.0")
    found = software.check_pytorch(tmp_path)
    assert (found.level, found.is_of_node) == (Level.FAULT, True)


def test_routes_are_compared_with_the_reference(monkeypatch):
    working = software.check_routes(CPU)[-1]
    assert working.level is Level.OK and "dense, sdpa" in working.found and "triton (" in working.found

    def fails(*tensors, **options):
        raise RuntimeError("no kernel image\nfor this device")

    sdpa = ROUTES["sdpa"]
    for attention, level, words in (
        (lambda *tensors, scale: 1.01 * sdpa.attention(*tensors, scale=scale), Level.FAULT, "is wrong by"),
        (fails, Level.WARNING, "fails: no kernel image"),
    ):
        monkeypatch.setitem(ROUTES, "sdpa", sdpa._replace(attention=attention))
        found = software.check_routes(CPU)[0]
        assert (found.name, found.level) == ("route sdpa", level) and words in found.found
        assert "sdpa" not in software.check_routes(CPU)[-1].found


def test_a_compiler_that_fails_or_is_wrong(monkeypatch):
    def no_compiler(function):
        raise RuntimeError("C++ compiler not found")

    for compile_, level in ((lambda function: function, Level.OK), (no_compiler, Level.WARNING),
                            (lambda function: lambda x: x, Level.FAULT)):  # fmt: skip
        monkeypatch.setattr(torch, "compile", compile_)
        assert software.check_compiler(CPU).level is level


def test_missing_packages_are_named_with_their_use(monkeypatch):
    monkeypatch.setattr(software, "PACKAGES", {"numpy": "all", "no-such-package": "runs on clusters"})
    missing, present = software.check_packages()
    assert (missing.level, missing.found) == (Level.WARNING, "not installed, needed for runs on clusters")
    assert present.found.startswith("numpy ") and missing.advice == "pip install no-such-package"


@pytest.mark.parametrize(
    ("line", "levels"),
    [
        ("0, 0, Not Active", []),
        ("0, [N/A], [N/A]", []),
        ("1, 3, Not Active", [Level.FAULT]),
        ("1, 12, Active", [Level.FAULT, Level.WARNING]),
        ("not a table", []),
    ],
)
def test_what_the_driver_reports(line, levels):
    assert [finding.level for finding in hardware.driver_line(line)] == levels


def test_a_device_whose_products_are_wrong_is_a_fault(monkeypatch):
    assert hardware.wrong_numbers(CPU) is None
    usual = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: usual(a, b) * (1.05 if a.dtype is torch.bfloat16 else 1)
    )
    assert "a product of matrices in bfloat16 is wrong by 5" in str(hardware.wrong_numbers(CPU))


def test_a_gpu_that_does_not_answer_is_a_fault_of_the_node_and_used_for_no_other_check(monkeypatch, tmp_path):
    def lost(device):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lost)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setenv("SLURMD_NODENAME", "gpu07")
    said = invoke("doctor", "--exclude-file", tmp_path / "bad_nodes")
    assert said.status == 2 and (tmp_path / "bad_nodes").read_text() == "gpu07\n"
    assert "does not answer: CUDA error: unspecified launch failure\n" in said.out
    assert "torch.compile on cpu" in said.out


def test_memory_folders_and_limits(monkeypatch, tmp_path):
    assert system.check_memory(2**30).level is Level.WARNING and system.check_memory(2**34).level is Level.OK
    assert system.check_shared_memory(tmp_path / "none") == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=2**26, free=2**40))
    [shared] = system.check_shared_memory(tmp_path)
    assert (shared.level, shared.found) == (Level.WARNING, f"0.06 GiB in {tmp_path}")
    (tmp_path / "file").touch()
    assert system.check_folder("runs", tmp_path).level is Level.OK
    assert system.check_folder("runs", tmp_path / "file/below").level is Level.FAULT
    assert (
        system.check_folder("compiled code", tmp_path / "file/below", is_loaded=True).level is Level.WARNING
    )
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=2**40, free=2**20))
    assert "0.00 GB free" in system.check_folder("runs", tmp_path).found
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 4096))
    assert system.check_limits().advice == "ulimit -n 4096"


@pytest.mark.parametrize(("known", "words"), [({"WANDB_API_KEY": "x"}, "is set"), ({}, "not logged in")])
def test_whether_wandb_knows_the_user(monkeypatch, tmp_path, known, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert words in system.check_wandb(known).found
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    if not known:
        assert system.check_wandb(known).found == "logged in"
