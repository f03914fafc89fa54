"""The current tenants while their files change."""

import pytest

from function_builder.tenants.current import CurrentTenants
from function_builder.tenants.document import TenantsError
from tests.unit.function_builder.tenants.conftest import Place

ACME = "tenants: {acme: {payload_secret_file: acme}}"


@pytest.fixture
def current(place: Place) -> CurrentTenants:
    place.write(ACME)
    return CurrentTenants(place.path, lambda read: [read(place.path.with_name("own"))])


def test_a_file_that_has_not_changed_is_not_read_again(current: CurrentTenants) -> None:
    before = current.tenants
    assert not current.refresh()
    assert current.tenants is before


def test_a_new_file_is_in_force(current: CurrentTenants, place: Place) -> None:
    place.write("tenants: {zeta: {payload_secret_file: zeta}}")
    assert current.refresh()
    assert set(current.tenants.by_name) == {"zeta", "default"}


@pytest.mark.parametrize("name", ["acme", "own"])
def test_a_new_secret_is_in_force(current: CurrentTenants, place: Place, name: str) -> None:
    """Kubernetes replaces the files of a Secret by renaming a link to their directory."""
    new = place.path.with_name("new")
    new.write_text("another secret of sixteen bytes")
    new.replace(place.path.with_name(name))
    assert current.refresh()
    tenant = "default" if name == "own" else name
    assert current.tenants.by_name[tenant].secrets == [b"another secret of sixteen bytes"]


def test_a_wrong_file_leaves_the_tenants_of_before_until_it_is_right(
    current: CurrentTenants, place: Place
) -> None:
    before = current.tenants
    place.write("tenants:\n  acme: {payload_secret_file: absent}\n")
    with pytest.raises(TenantsError, match="line 2, column 31"):
        current.refresh()
    assert current.tenants is before
    # It is told once.
    assert current.stale is True
    assert not current.refresh()
    # A secret that was absent is there now; the file itself is the same.
    place.path.with_name("absent").write_text("the secret that was absent")
    assert current.refresh()
    assert (current.stale, current.refresh()) == (False, None)
    assert current.tenants.by_name["acme"].secrets == [b"the secret that was absent"]


def test_a_wrong_file_at_the_start_is_refused(place: Place) -> None:
    place.write("tenants: []")
    with pytest.raises(TenantsError):
        CurrentTenants(place.path, lambda _: [])
