"""Several processes, one run: one configuration, one voice, one end, whoever starts them."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from toys import language_model, write_text

from hf_llm import InputError, accelerate_profiles, launching
from hf_llm.config import LauncherConfig

PROFILES = sorted((ROOT / "conf" / "accelerate").glob("*.yaml"))
TWO = ["launcher=accelerate", "launcher.profile=cpu", "launcher.num_processes=2"]
MODULE = [sys.executable, "-m", "hf_llm", "train"]


def run(command, folder, code=0, **environment):
    """What the command wrote to standard output and standard error, run in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def processes_of(folder: Path) -> int:
    return json.loads((folder / "environment.json").read_text())["num_processes"]


# In the folder of a test it is imported by every Python: the data cannot be read, on the rank that FAIL names.
FAILING = """
import os
if os.environ.get("RANK") == os.environ["FAIL"]:
    import hf_llm.data
    def load(*args, **kwargs):
        raise RuntimeError(" ".join(("the one real", "error")))
    hf_llm.data.load = load
"""


def test_two_processes_train_one_run_with_one_voice_and_a_notebook_gets_it_back(tmp_path):
    options = language_model(tmp_path, run="two")
    code = (
        "import sys\n"
        "from hf_llm import compose, launch\n"
        f"run = launch(compose(*{options!r}), num_processes=2, profile='cpu')\n"
        "print('LOSS', run.metrics['validation']['loss'], 'torch' in sys.modules)\n"
    )
    out, err = run([sys.executable, "-c", code], tmp_path)
    assert err == ""
    folder = tmp_path / "outputs" / "two"
    assert processes_of(folder) == 2
    loss = json.loads((folder / "metrics.json").read_text())["validation"]["loss"]
    assert out.splitlines()[-1] == f"LOSS {loss} False"  # the notebook's process never loaded torch, nor touched a GPU
    said = [line for line in out.splitlines() if line.strip()]
    assert len(said) == len(set(said))  # no line twice, once for each rank
    # the same on other processes is the same run
    out, err = run([*MODULE, *options, "launcher=local"], tmp_path)
    assert "two is complete: nothing to do" in err


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_error_of_any_rank_is_shown_once_and_ends_all(tmp_path, rank):
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    where = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    _, err = run([*MODULE, *language_model(tmp_path), *TWO], tmp_path, code=1, PYTHONPATH=where, FAIL=rank)
    assert err.count("Traceback") == 1
    assert err.count("the one real error") == 1


@pytest.mark.slow
def test_bad_data_is_one_line_and_exit_code_2_on_however_many_processes(tmp_path):
    (tmp_path / "empty.txt").touch()
    options = [*language_model(tmp_path, run="mine"), "data.files.train=empty.txt"]
    assert run([*MODULE, *options, *TWO], tmp_path, code=2)[1] == "hf-llm: empty.txt: the file is empty\n"
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node=2", "--rdzv-backend=c10d"]
    _, err = run([*torchrun, "--rdzv-endpoint=localhost:0", "-m", "hf_llm", "train", *options], tmp_path, code=1)
    assert err.count("hf-llm: empty.txt: the file is empty\n") == 1
    assert not (tmp_path / "outputs" / "mine").exists()


@pytest.mark.slow
def test_every_rank_trains_what_rank_0_was_given(tmp_path):
    """Another seed and another name on rank 1 change nothing; and without a launcher's word, the CPU is found."""
    (tmp_path / "start.py").write_text(
        "import os, sys\n"
        "from hf_llm.cli import main\n"
        "own = ['run=stray', 'trainer.max_steps=3'] if os.environ['RANK'] == '1' else []\n"
        "main(['train', *sys.argv[1:], *own])\n"
    )
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node=2", "--rdzv-backend=c10d"]
    options = [option for option in language_model(tmp_path, run="one") if option != "trainer.use_cpu=true"]
    run([*torchrun, "--rdzv-endpoint=localhost:0", "start.py", *options], tmp_path)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["one"]
    assert json.loads((tmp_path / "outputs" / "one" / "metrics.json").read_text())["train"]["steps"] == 4


@pytest.mark.slow
def test_each_trial_of_a_sweep_is_a_launch_of_its_own(tmp_path):
    run([*MODULE, *language_model(tmp_path, run="seed"), *TWO, "-m", "trainer.seed=1,2"], tmp_path)
    trials = sorted((tmp_path / "outputs").iterdir())
    assert [trial.name for trial in trials] == ["seed-seed=1", "seed-seed=2"]
    assert [processes_of(trial) for trial in trials] == [2, 2]
    assert [json.loads((trial / "environment.json").read_text())["seed"] for trial in trials] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True])
def test_two_machines_train_one_run_and_end_together(tmp_path, bad):
    """Both are this one; only the second machine's processes find their data bad."""
    import socket

    profile = (ROOT / "conf" / "accelerate" / "multi_node.yaml").read_text()
    profile = profile.replace("MULTI_GPU", "MULTI_CPU\nuse_cpu: true").replace("bf16", "'no'", 3)
    (tmp_path / "two.yaml").write_text("\n".join(line for line in profile.splitlines() if not line.startswith("#")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["launcher.main_process_ip=127.0.0.1", f"launcher.main_process_port={port}", "launcher.num_processes=2"]
    command = [*MODULE, *language_model(tmp_path, run="both"), "launcher.profile=two.yaml", *where]
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "FAIL": "1" if bad else ""}
    machines = [
        subprocess.Popen(
            [*command, f"launcher.machine_rank={rank}"], cwd=tmp_path, env=environment, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = ["".join(machine.communicate()) for machine in machines]
    assert [machine.returncode for machine in machines] == ([1, 1] if bad else [0, 0]), said
    if bad:
        assert "".join(said).count("the one real error") == 1
        assert "".join(said).count("Traceback") == 1
    else:
        assert said[1] == ""
        assert processes_of(tmp_path / "outputs" / "both") == 2


def test_every_profile_is_one_that_accelerate_itself_reads():
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    assert len(PROFILES) == 8
    for path in PROFILES:
        config = load_config_from_file(str(path))
        assert isinstance(config, ClusterConfig)
        assert str(config.distributed_type.value) in path.read_text()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_what_a_profile_sets_is_what_accelerates_processes_are_told(path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launcher = LauncherConfig(name="accelerate", profile=str(path))
    if path.stem == "multi_node":
        launcher = dataclasses.replace(launcher, main_process_ip="127.0.0.1", machine_rank=1)
    told = accelerate_profiles.environment(accelerate_profiles.arguments(launcher))
    assert told["ACCELERATE_MIXED_PRECISION"] == ("no" if path.stem == "cpu" else "bf16")
    if path.stem.startswith("fsdp2"):
        assert (told["ACCELERATE_USE_FSDP"], told["FSDP_VERSION"]) == ("true", "2")
        assert told["FSDP_RESHARD_AFTER_FORWARD"] == "true"
        assert told["FSDP_OFFLOAD_PARAMS"] == ("true" if path.stem.endswith("offload") else "false")
        assert told["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    if path.stem.startswith("deepspeed"):
        assert told["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == path.stem[-1]
    if path.stem == "cpu":
        assert told["ACCELERATE_USE_CPU"].lower() == "true"
    if path.stem == "single_gpu":
        assert told["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_offload"])
def test_every_setting_of_fsdp2_is_one_that_accelerate_has_and_uses(name):
    import yaml
    from accelerate.utils import FullyShardedDataParallelPlugin

    settings = yaml.safe_load((ROOT / "conf" / "accelerate" / f"{name}.yaml").read_text())["fsdp_config"]
    fields = {field.name for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
    other_names = {"offload_params": "cpu_offload"}
    for key in settings:
        short = key.removeprefix("fsdp_")
        assert key in fields or other_names.get(short, short) in fields
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=settings["fsdp_reshard_after_forward"],
        cpu_offload=settings["fsdp_offload_params"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"].lower(),
        state_dict_type=settings["fsdp_state_dict_type"],
    )
    assert plugin.fsdp_version == 2


def test_a_profile_is_found_among_ones_own_then_ours_then_as_a_file(tmp_path):
    write_text(tmp_path)
    (tmp_path / "conf" / "accelerate").mkdir(parents=True)
    own = tmp_path / "conf" / "accelerate" / "cpu.yaml"
    own.write_text("distributed_type: MULTI_CPU\n")

    def found(profile, config_dir=None):
        return launching.profile_of(LauncherConfig(name="accelerate", profile=profile), config_dir)

    assert found("cpu") == str(ROOT / "conf" / "accelerate" / "cpu.yaml")
    assert found("cpu", str(tmp_path / "conf")) == str(own)
    assert found(str(own)) == str(own)
    assert found(None) is None
    with pytest.raises(InputError, match="did you mean fsdp2\\?"):
        found("fsdp22")
