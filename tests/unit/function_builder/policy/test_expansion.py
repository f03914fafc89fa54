"""Dockerfiles whose variables grow: what is refused, and that no ordinary one is.

That no length is below BuildKit's own is shown in tests/adversarial/hostile/test_dockerfiles.py.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.cli.up import EXAMPLE
from function_builder.contract.errors import Refusal
from function_builder.policy.expansion import refuse_expansion
from function_builder.policy.words import Stopped, TooDeep, Word

ROOT = Path(__file__).parents[4]
BEGIN = f"FROM busybox\nARG A={'a' * 100}\n"
LARGE = f"FROM busybox\nARG A={'a' * 100_000}\n"
TEN = "$A" * 10


def check(dockerfile: str, build_args: Mapping[str, str] | None = None, *platforms: str) -> None:
    refuse_expansion(dockerfile.encode(), build_args or {}, platforms)


@pytest.mark.parametrize(
    "dockerfile",
    {
        "ARG": BEGIN + f"ARG A={TEN}\n" * 8,
        "ENV": BEGIN + f"ENV A={TEN}\n" * 8,
        "ENV without =": BEGIN + f"ENV A {TEN}\n" * 8,
        "lower case": BEGIN + f"env A={TEN}\n" * 8,
        "several": BEGIN + f"ENV B=1 A={TEN} C=2\n" * 8,
        "in turn": BEGIN + f"ENV B={TEN}\nENV A={'$B' * 10}\n" * 4,
        "double quotes": BEGIN + 'ENV A="$A $A $A $A $A"\n' * 12,
        "quotes in a word": BEGIN + "ENV A='$A'$A$A\"'\"$A$A\"'\"\n" * 12,
        "braces": BEGIN + f"ENV A={'${A}' * 10}\n" * 8,
        "defaults": BEGIN + "ENV A=${A:-x}${X:-$A$A$A$A}${A:+$A$A$A}\n" * 8,
        "replaced": BEGIN + "ARG A=${A//a/aaaaaaaaaa}\n" * 8,
        "replaced by variables": BEGIN + "ARG A=${A//a/$A}\n" * 4,
        "replaced by matches": BEGIN + "ARG A=${A//*/\\$0\\$0\\$0\\$0\\$0}\n" * 10,
        "replaced once": BEGIN + f"ARG A=${{A/a/{TEN}}}\n" * 8,
        "trimmed": BEGIN + f"ARG A=${{A#x}}{TEN}\n" * 8,
        "continued": BEGIN + "ENV A=$A$A\\\n$A$A\\\n# a comment\n\n  $A$A\n" * 12,
        "an instruction in parts": BEGIN + f"EN\\\nV A={TEN}\n" * 8,
        "another escape": f"# escape=`\n{BEGIN}" + f"ENV `\n A={TEN}\n" * 8,
        "no continuation": BEGIN + f"ENV A={TEN}\\\\\n'\n" * 8,
        "a heredoc that ends at a backslash": BEGIN + f"RUN <<'E\\'\nE\\\nENV A={TEN}\n" * 8,
        "one without end": BEGIN + "RUN <<E\n" + f"ENV A={TEN}\n" * 8,
        "stages": f"ARG A={'a' * 100}\n" + f"FROM scratch AS s\nARG A\nARG A={TEN}\n" * 8,
        "a stage of a stage": BEGIN + f"FROM s AS s\nENV A={TEN}\n" * 8,
        "ONBUILD": BEGIN + f"ONBUILD ENV A={TEN}\n" * 8,
        "ONBUILD, for each stage": f"{BEGIN}ONBUILD ENV A={TEN}\n" + "FROM s AS s\n" * 8,
        "a name of variables": BEGIN + f"ARG N=A\nENV $N={TEN}\n" * 8,
        "a quoted name": BEGIN + f'ENV "A"={TEN}\n' * 8,
        "a digit": BEGIN.replace("A=", "1=") + f"ARG 1={'$1a' * 10}\n" * 8,
        "a sign": BEGIN.replace("A=", "@=") + f"ARG @={'$@' * 10}\n" * 8,
        "letters": BEGIN.replace("A=", "Ä=") + f"ARG Ä={'$Ä²' * 10}\n" * 8,
        "LABEL": f"{LARGE}LABEL a={'$A' * 1000}\n",
        "LABEL that fails": f"{LARGE}LABEL a={'$A' * 1000} b='\n",
        "RUN": f"{LARGE}RUN echo {'$A' * 1000}\n",
        "WORKDIR": f"{LARGE}WORKDIR /{'$A/' * 1000}\n",
        "FROM": f"ARG A={'a' * 100_000}\nFROM {'$A' * 1000}\n",
        "JSON": f'{LARGE}VOLUME ["{"$A" * 1000}"]\n',
        "escaped JSON": LARGE + 'VOLUME ["' + "\\u0024A" * 1000 + '"]\n',
        "COPY": f"{LARGE}COPY {'$A' * 1000} /\n",
        "a file in the Dockerfile": f"{LARGE}COPY <<EOF /\n{'$A' * 1000}\nEOF\n",
        "one with a strange end": f"{LARGE}COPY <<E.F /\n{'$A' * 1000}\nE.F\n",
        "steps": BEGIN + "".join(f"ENV A{n}={'a' * 100_000}\n" for n in range(9)) + "RUN $x\n" * 60,
    }.items(),
    ids=lambda item: item[0],
)
def test_what_grows_is_refused(dockerfile):
    with pytest.raises(Refusal, match="variables grow too long") as refused:
        check(dockerfile[1])
    assert refused.value.status == 400


def test_a_build_argument_counts_and_each_platform_does():
    used = f"FROM scratch\nARG A\nENV B={'$A' * 100}\n"
    check(used, {"A": "x"})
    with pytest.raises(Refusal, match="line 3, ENV sets a variable to more than 131072"):
        check(used, {"A": "x" * 50_000})
    steps = LARGE + "RUN $x\n" * 100
    check(steps)
    check(steps, {}, "linux/amd64", "linux/amd64")
    with pytest.raises(Refusal, match="the instructions up to here"):
        check(steps, {}, *(f"linux/arm/v{version}" for version in range(4)))


def test_what_is_nested_without_end_is_refused():
    with pytest.raises(Refusal, match="more than 50 substitutions in one another"):
        check("FROM scratch\nENV A=" + "${A:-" * 100_000 + "}" * 100_000)


@pytest.mark.parametrize(
    "dockerfile",
    [
        "ENV \\\n" * 30_000 + "$",
        "EN\\\n" * 30_000 + "$",
        "ONBUILD \\\n" * 30_000 + "$",
        "ONBUILD\n" * 5_000 + "FROM $x\n" * 5_000,
        "RUN " + "$a" * 50_000,
    ],
)
def test_reading_ends_soon(dockerfile):
    """Each of these took minutes or all memory without a price for each line."""
    with pytest.raises(Refusal, match="variables grow too long"):
        check(dockerfile)


@pytest.mark.parametrize(
    "dockerfile",
    {
        "none": "FROM scratch\nCOPY . .\n",
        "a path, in many stages": "FROM x\nENV PATH=$PATH:/opt/bin HOME=$HOME\n" * 40,
        "a long value": f"FROM x\nENV A={'a' * 500_000}\n",
        "a chain": "FROM x\nENV V=1.2.3\nENV D=/opt/$V\nENV B=$D/bin L=$D/lib:$D/lib64\n"
        "ENV PATH=$B:$PATH LD=$L:$LD\nRUN echo ${V//./-} ${V%.*}\n",
        "a script": "FROM x\nRUN set -eu; " + 'for i in $a; do echo "$i ${b:-$c}"; done; ' * 800,
        "an awk": "FROM x\nRUN awk '{print $1 \"}\" $2' < x | sed 's/${/$/' && echo \\$A\n",
        "a heredoc": "FROM x\nRUN <<'EOF'\n" + 'echo "$PATH ${x}"\n' * 2000 + "EOF\n",
        "a file": "FROM x\nCOPY <<'EOF' /f\n" + 'echo "$PATH ${x}"\n' * 5000 + "EOF\nRUN f\n",
        "steps": "FROM x\n" + "".join(f"ENV A{n}=$B/{n}\nRUN echo $A{n}\n" for n in range(120)),
        "Windows": "# escape=`\nFROM x\nENV P=C:\\Go\\bin;$P\nRUN dir `\n  C:\\\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_ordinary_is_not(dockerfile):
    check(dockerfile[1], {"http_proxy": "http://proxy:3128"}, "linux/amd64", "linux/arm64")


@pytest.mark.parametrize(
    "path", [ROOT / "image/Dockerfile", EXAMPLE / "Dockerfile"], ids=lambda path: path.parent.name
)
def test_our_own_are_not(path):
    check(path.read_text())


@given(st.text("$A{}:-+?#%/\\'\"` \n\t<=[]E@1é", max_size=60), st.sampled_from("\\`"))
def test_no_word_breaks_the_lexer(text, escape):
    word = Word(text, escape, lambda _: 7, quotes=True)
    with contextlib.suppress(Stopped, TooDeep):
        assert word.length() >= 0


@given(st.text("$A{}=\\'\"` \n<#EOFRUNARGENVCOPY", max_size=200))
def test_no_dockerfile_does(text):
    """None of these is long enough to be refused."""
    check(text)
