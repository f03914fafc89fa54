"""The index of builds, held to a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from function_builder.contract.builds import BuildState
from function_builder.queue.index import BuildIndex

ids = st.integers(0, 40).map(lambda number: f"{number:024x}")
repositories = st.sampled_from(["", "r/f", "r/g"])
states = st.sampled_from(list(BuildState))


class Index(RuleBasedStateMachine):
    """Records come in any order of their ids, change, and go."""

    @initialize(limit=st.integers(1, 12))
    def open(self, limit: int) -> None:
        self.index = BuildIndex(limit)
        self.limit = limit
        self.model: dict[str, tuple[int, str, BuildState]] = {}
        self.sequence = 0

    @rule(build_id=ids, repository=repositories, state=states)
    def put(self, build_id: str, repository: str, state: BuildState) -> None:
        self.sequence += 1
        self.index.put(build_id, self.sequence, repository, state)
        self.model[build_id] = (self.sequence, repository, state)

    @rule(gone=st.lists(ids, max_size=3))
    def forget(self, gone: list[str]) -> None:
        self.index.forget(gone)
        for build_id in gone:
            self.model.pop(build_id, None)

    @rule(ago=st.integers(0, 20))
    def expire(self, ago: int) -> None:
        first = self.sequence - ago
        self.index.expire(first)
        self.model = {name: entry for name, entry in self.model.items() if entry[0] >= first}

    @rule(
        before=ids | st.just("g"),
        wanted=st.frozensets(states, max_size=3),
        repository=repositories,
        limit=st.integers(1, 50),
    )
    def select(
        self, before: str, wanted: frozenset[BuildState], repository: str, limit: int
    ) -> None:
        found = self.index.select(before, wanted, repository, limit)
        assert (
            found
            == [
                name
                for name, (_, where, state) in sorted(self.model.items(), reverse=True)
                if self.index.horizon <= name < before
                and (not wanted or state in wanted)
                and repository in ("", where)
            ][:limit]
        )

    @invariant()
    def it_has_its_bound_and_every_build_above_its_horizon(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) <= self.limit
        above = [name for name in self.model if name >= self.index.horizon]
        assert sorted(self.index.select("g", (), "", 100)) == sorted(above)


TestIndex = Index.TestCase


@given(st.lists(ids, unique=True))
def test_within_its_bound_it_has_no_horizon(names):
    index = BuildIndex(len(names) or 1)
    for number, name in enumerate(names):
        index.put(name, number, "", BuildState.QUEUED)
    assert index.horizon == ""
    assert index.select("g", (), "", 100) == sorted(names, reverse=True)
