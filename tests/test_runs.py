"""The run directory, and what may be in one that somebody else made."""

import pytest

from hf_llm import InputError, compose, runs

UNREADABLE = {
    "a day that there is not": b"run: 2001-99-99\n",
    "a number of thousands of digits": b"run: " + b"9" * 5000 + b"\n",
    "a number too large to be written": b"run: 0x" + b"f" * 5000 + b"\n",
    "a number larger than any": b"run: 1" + b":59" * 1000 + b".5\n",
    "groups without end": b"[" * 10**4,
    "another encoding": "run: \u00e9\n".encode("latin-1"),
    "a key that is a list": b"? [a]\n: b\n",
    "a list": b"- run\n",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_configuration_that_cannot_be_is_refused_in_one_line_that_names_it(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(UNREADABLE[name])
    with pytest.raises(InputError) as refused:
        runs.load_raw_config(path)
    assert str(refused.value).startswith(f"{path}: not ")
    assert "\n" not in str(refused.value)


def test_an_interpolation_hides_behind_no_other_key_of_its_name(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text('data.path: "${oc.env:HOME}"\ndata: {path: me/rows}\n')
    with pytest.raises(InputError, match=r"data\.path holds an interpolation"):
        runs.load_raw_config(path)


def test_a_hidden_folder_is_not_listed_as_a_run(tmp_path):
    for name in (".book.pulling", "poem"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match=rf"\({tmp_path}/ has poem\)"):
        runs.find(compose("evaluate", "run=nothing", f"runs_dir={tmp_path}", "data.files=x.txt"))
