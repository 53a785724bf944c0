"""What leases cost, and that no figure is made up."""

from datetime import date, timedelta

import pytest

from provisioning import cost, times
from provisioning.cost import Cost
from provisioning.errors import UsageError
from provisioning.leases import Lease
from provisioning.sites import Rates, load_sites

RATES = Rates("https://site/rates", date(2026, 10, 9))


def lease(begin_h, end_h, status="ACTIVE"):
    now = times.now()
    return Lease("id", status, now + timedelta(hours=begin_h), now + timedelta(hours=end_h), "reservation", now)


def test_all_leases_of_a_booking_count_and_only_what_has_passed_of_them():
    node = load_sites()[0].nodes[0]
    spent = cost.of(
        node, [lease(-3, -1, "TERMINATED"), lease(-0.5, 4), lease(2, 5, "PENDING"), lease(-9, -1, "ERROR")], times.now()
    )
    assert spent.hours == pytest.approx(2.5, abs=0.01)
    assert spent.su == pytest.approx(10, abs=0.04)
    assert spent.text == "10.0 SU"


def test_the_report_has_the_sum_and_counts_by_name_what_it_does_not_know():
    said = cost.report({"ann": Cost(2, 4), "ben": Cost(1, 16), "cid": Cost(3, None)}, [RATES, RATES], ["dan"])
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines == [
        "cost so far", "ann 2.0 node hours 8.0 SU", "ben 1.0 node hours 16.0 SU", "cid 3.0 node hours unknown rate",
        "all 6.0 node hours 24.0 SU", "not in the SU: cid, 3.0 node hours",
        "not counted, since it could not be read: dan", "rates: https://site/rates (2026-10-09)",
    ]  # fmt: skip


def test_nothing_known_is_never_a_sum_of_zero():
    said = cost.report({"ann": Cost(2, None)}, [])
    assert "0.0 SU" not in said and "$" not in said
    assert said.splitlines()[-1].split() == ["all", "2.0", "node", "hours", "unknown", "rate"]
    assert "0.0 SU" in cost.report({"ann": Cost(0, 4)}, [])  # a lease that has yet to start is known to cost nothing


def test_each_rate_says_where_it_was_read_and_when():
    for site in load_sites():
        for node in site.nodes:
            if node.su_per_hour is not None:
                assert site.rates.source.startswith("https://") and site.rates.date <= date(2026, 11, 29)
    documented = {node.name: node.su_per_hour for site in load_sites() for node in site.nodes}
    assert documented == {"g1.h100.pci.1": 4, "g1.h100.pci.4": 16, "compute_gigaio": 4, "gpu_a100_pcie": 16}


def test_a_rate_without_a_source_is_refused(tmp_path):
    path = tmp_path / "sites.yaml"
    text = """
    A:
      {virtual_machine: false, image: i, network: n, public_network: p, ssh_user: u, boot_timeout_min: 1, nodes: {x: {
      gpu: g, count: 1, profile: p, su_per_hour: %s}}}
    """
    path.write_text(text % 3)
    with pytest.raises(UsageError, match="x has su_per_hour, and A has no rates with source and date"):
        load_sites(path)
    path.write_text(text % "null")
    assert load_sites(path)[0].nodes[0].su_per_hour is None
