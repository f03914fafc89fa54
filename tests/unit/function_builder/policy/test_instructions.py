"""Dockerfiles with too much for BuildKit: what is refused, and that no ordinary one is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.policy.instructions import (
    MAX_INSTRUCTION_CHARS,
    MAX_INSTRUCTIONS,
    MAX_WORDS,
    refuse_size,
)

NAMES = [f"n{number}" for number in range(MAX_WORDS)]
FEW, MANY = NAMES[: MAX_WORDS - 100], [*NAMES, "more"]
PARTS = [" ".join(MANY[n : n + 500]) for n in range(0, len(MANY), 500)]
FLAGS = [f"--mount=type=tmpfs,target=/t{number}" for number in range(MAX_WORDS + 1)]


@pytest.mark.parametrize(
    "dockerfile",
    {
        "one COPY": f"COPY {' '.join(MANY)} /d/\n",
        "several": "".join(f"COPY {part} /d/\n" for part in PARTS),
        "COPY and ADD": "".join(
            f"COPY {a} /d/\nADD {b} /d/\n" for a, b in zip(PARTS, PARTS, strict=True)
        ),
        "JSON": "COPY [" + ",".join(f'"{name}"' for name in MANY) + ',"/d/"]\n',
        "continued": "COPY " + "\\\n# a comment\n\n".join(f"{name} " for name in MANY) + "/d/\n",
        "another escape": "# escape=`\nCOPY " + " `\n".join(MANY) + " /d/\n",
        "patterns to leave out": "COPY "
        + " \\\n".join(f"--exclude={n}" for n in MANY)
        + " . /d/\n",
        "for a later build": f"ONBUILD COPY {' '.join(MANY)} /d/\n",
        "lower case": f"  copy {' '.join(MANY)} /d/\n",
        "a name in parts": f"CO\\\nP\\\nY {' '.join(MANY)} /d/\n",
        "behind a heredoc that ends at a backslash": "RUN <<'E\\'\nE\\\nCOPY " + " ".join(MANY),
        "lines that end as those of Windows": " \\\r\n".join(["COPY", *MANY, "/d/\r\n"]),
        "ENV": "ENV " + " ".join(f"{name}=1" for name in MANY) + "\n",
        "LABEL": "LABEL " + " ".join(f"{name}=1" for name in MANY) + "\n",
        "EXPOSE": "EXPOSE " + " ".join(map(str, range(1, MAX_WORDS + 2))) + "\n",
        "VOLUME": f"VOLUME {' '.join(MANY)}\n",
        "flags of RUN": "RUN " + " \\\n".join(FLAGS) + " true\n",
        "flags of RUN, a name in parts": "RU\\\nN " + " \\\n".join(FLAGS) + " true\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_too_many_words_are_refused(dockerfile):
    with pytest.raises(Refusal, match=f"more than {MAX_WORDS} words in all") as refused:
        refuse_size(f"FROM scratch\n{dockerfile[1]}".encode())
    assert refused.value.status == 400


@pytest.mark.parametrize("line", ["ENV a=1", "USER 1", "FROM scratch", "RUN a", "onbuild run a"])
def test_too_many_instructions_are_refused(line):
    with pytest.raises(Refusal, match=f"more than {MAX_INSTRUCTIONS} (instructions|words)"):
        refuse_size(f"{line}\n".encode() * (MAX_INSTRUCTIONS + 1))


@pytest.mark.parametrize("head", ["RUN", "CMD", "LABEL a=", "HEALTHCHECK CMD", "ENV A"])
def test_an_instruction_that_is_too_long_is_refused_and_named(head):
    lines = "\\\n".join(["x" * 60_000] * (MAX_INSTRUCTION_CHARS // 60_000 + 1))
    name = head.split()[0]
    with pytest.raises(Refusal, match=f"its {name} in line 2 has more than"):
        refuse_size(f"FROM scratch\n{head} {lines}\n".encode())


@pytest.mark.parametrize(
    "dockerfile",
    {
        "sources": f"COPY {' '.join(FEW)} /d/\n",
        "a long script": "RUN set -eu; " + "a b c; \\\n" * 8_000 + "true\n",
        "commands": "RUN " + "a " * 9_000 + "\n" + "CMD " + "a " * 9_000 + "\n",
        "a file in the Dockerfile": "COPY <<EOF /f\n" + "some words of text\n" * 30_000 + "EOF\n",
        "a script in the Dockerfile": "RUN <<EOF\n" + "echo some words\n" * 30_000 + "EOF\n",
        "comments": "# COPY a b\n" * 60_000,
        "ports": "EXPOSE 1-65535\n" * 900,
    }.items(),
    ids=lambda item: item[0],
)
def test_what_buildkit_reads_quickly_is_not(dockerfile):
    refuse_size(f"FROM scratch\n{dockerfile[1]}".encode())


BETWEEN = st.sampled_from([" ", "\t", " \\\n", "\\\n ", " \\\n# a comment\n", " \\\n\n\n  "])


@given(st.lists(BETWEEN, min_size=1, max_size=20))
def test_no_word_is_missed(between):
    """Just too many words are too many, wherever the lines break."""
    instruction = "COPY" + "".join(f"{space}a" for space in between) + "\n"
    times = MAX_WORDS // (len(between) + 1) + 1
    with pytest.raises(Refusal, match="words in all"):
        refuse_size(instruction.encode() * times + b"#" * (2 * MAX_WORDS))


@pytest.mark.parametrize(
    "dockerfile",
    ["ENV \\\n" * 170_000, "ENV\\\n " * 150_000, "COPY \\\n#\n" * 100_000, "RUN --a\\\n" * 100_000],
)
def test_reading_takes_time_by_the_length_alone(dockerfile):
    began = time.process_time()
    with pytest.raises(Refusal):
        refuse_size(dockerfile.encode())
    assert time.process_time() - began < 5
