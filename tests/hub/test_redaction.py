"""Where files lay and what opens a door is taken out of what is published, however it is written; the rest stays."""

import getpass

import pytest

from hf_llm.hub.redaction import leak, public, public_command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/data/train.csv", "train.csv"),
        ("/home/ann/my data/train.csv", "train.csv"),
        ("~/data/train.csv", "train.csv"),
        ("~ann/x/y.csv", "y.csv"),
        (r"C:\Users\ann\train.csv", "train.csv"),
        ("C:/Users/ann/x.csv", "x.csv"),
        (r"\\server\ann\x.csv", "x.csv"),
        ("file:/mnt/x", "x"),
        ("file:///mnt/ann/x.csv", "x.csv"),
        ("../../ann/train.csv", "train.csv"),
        ("data/../../ann/p.csv", "p.csv"),
        ("x=../../ann/p.csv", "x=p.csv"),
        ("hf-llm train data.files.train=/home/ann/a.csv run=/tmp/x/y", "hf-llm train data.files.train=a.csv run=y"),
        ("data.files.train=[/home/ann/a.csv,/home/ann/b.csv]", "data.files.train=[a.csv,b.csv]"),
        ("data.files={train:/data/ann/train.csv,test:C:/ann/t.csv}", "data.files={train:train.csv,test:t.csv}"),
        ("https://ann:pw@host/x.csv?token=abc", "https://host/x.csv"),
        ("https://ann:p/w@host/x.csv#abc", "https://host/x.csv"),
        ("[https://ann:p,w@h/x.csv?token=abc,https://h:80/b.csv?y=1]", "[https://h/x.csv,https://h:80/b.csv]"),
        ("[https://h/a.csv,/home/ann/b.csv]", "[https://h/a.csv,b.csv]"),
        ("zip://x.csv::https://ann:pw@host/a.zip?token=abc", "zip://x.csv::https://host/a.zip"),
        ("simplecache::/home/ann/x.zip", "simplecache::x.zip"),
        ("sqlite:////home/ann/x.db", "x.db"),
        ("data/train.csv", "data/train.csv"),
        ("stanfordnlp/imdb", "stanfordnlp/imdb"),
        ("hf://datasets/me/x@main/f.csv", "hf://datasets/me/x@main/f.csv"),
        ("https://example.org/a/b.csv", "https://example.org/a/b.csv"),
        ("and/or, 1/2 and / alone", "and/or, 1/2 and / alone"),
        ("/", "/"),
        ({"train": ["/a/b/c.txt"], "n": 3}, {"train": ["c.txt"], "n": 3}),
        ({"/home/ann/x": True}, {"x": True}),
    ],
)
def test_places_are_cut_to_their_last_part_and_addresses_to_what_is_public(text, expected):
    assert public(text) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("hf-llm train 'data.files.train=/home/ann/my data/x.csv' run=a", "hf-llm train data.files.train=x.csv run=a"),
        (
            "hf-llm train --config-dir /home/ann/conf +data.path=~ann/x.csv",
            "hf-llm train --config-dir conf +data.path=x.csv",
        ),
        ("python /home/ann/train.py data.path='https://h/x?token=a,b'", "python train.py data.path=https://h/x"),
        ("hf-llm train 'data.files={train:/data/ann/a.csv}'", "hf-llm train 'data.files={train:a.csv}'"),
        ("hf-llm train 'no end /home/ann/x.csv", "hf-llm train 'no end x.csv"),
    ],
)
def test_a_command_is_cleaned_argument_by_argument(command, expected):
    assert public_command(command) == expected


@pytest.mark.parametrize(
    "text",
    [
        "/home/{user}/x", r"C:\Users\{user}\x", r"C:\\Users\\{user}\\x", "/Users/{user}", "~{user}/x",
        "hf_" + "a1B2" * 9, "sk-proj-" + "a1B2" * 6, "ghp_" + "a1B2" * 9, "AKIA" + "A1B2" * 4, "https://ann:pw@host/x",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_a_last_look_finds_users_keys_and_passwords(text, tmp_path):
    assert leak("before " + text.replace("{user}", getpass.getuser()) + " after", tmp_path)


def test_a_last_look_lets_pass_what_only_looks_like_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    texts = [
        "the root of it",
        "data/root/x",
        "square/root",
        "http://host:80/x",
        "task-a1B2a1B2a1B2a1B2a1B2",
        "/home/rooted",
    ]
    assert [text for text in texts if leak(text, tmp_path / "run")] == []
