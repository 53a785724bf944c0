"""Guards of a class: what is booked, charged, swept away, and said inside JupyterLab."""

from guard import Guard

COST = "tests/provisioning/test_cost.py"
ROTATION = "tests/provisioning/test_rotation.py"
SWEEP = "tests/provisioning/test_sweep.py"
ACTIVITY = "tests/provisioning/test_activity.py"
LEASE = "tests/lab/panel/test_lease.py"

GUARDS = (
    Guard(
        "cost: nothing known is no sum",
        "unknown rates add up to nothing",
        "provisioning/cost.py",
        'f"{sum(known):.1f} SU" if known else UNKNOWN',
        'f"{sum(known):.1f} SU"',
        (f"{COST}::test_nothing_known_is_never_a_sum_of_zero",),
    ),
    Guard(
        "cost: a rate has a source",
        "a figure that no one can look up is charged",
        "provisioning/sites.py",
        "    if charged and not rates:",
        "    if False:",
        (f"{COST}::test_a_rate_without_a_source_is_refused",),
    ),
    Guard(
        "rotation: everyone has a slot",
        "the last students' slots lie after the window",
        "provisioning/rotation.py",
        "    if rounds * nodes < len(netids):",
        "    if False:",
        (f"{ROTATION}::test_everyone_gets_one_slot_in_the_window_and_no_node_two_students",),
    ),
    Guard(
        "rotation: whole minutes",
        "Blazar cuts seconds off, and two leases meet",
        "provisioning/rotation.py",
        "    start = _next_minute(start)\n",
        "",
        (f"{ROTATION}::test_everyone_gets_one_slot_in_the_window_and_no_node_two_students",),
    ),
    Guard(
        "timetable: who is late gets what is left",
        "the next student finds the node taken",
        "provisioning/timetable.py",
        "    return (None, until - now) if",
        "    return (None, student.length or length) if",
        (f"{ROTATION}::test_a_lease_keeps_to_the_class_list",),
    ),
    Guard(
        "timetable: a lease for another time",
        "a slot counts as booked that is not",
        "provisioning/timetable.py",
        "    if abs(lease.start - start) >= SHORTEST or abs(lease.end - start - length) >= SHORTEST:",
        "    if False:",
        (f"{ROTATION}::test_a_lease_for_another_time_is_not_taken_for_the_booked_one",),
    ),
    Guard(
        "sweep: what is just being made",
        "another class's nodes are deleted under its hands",
        "provisioning/sweep.py",
        "rate, spare, not young)",
        "rate, spare, True)",
        (f"{SWEEP}::test_what_the_lists_alone_say",),
    ),
    Guard(
        "sweep: a live lease is not over",
        "a student's node is deleted",
        "provisioning/sweep.py",
        "    if not _live(things) and (left",
        "    if (left",
        (f"{SWEEP}::test_what_the_lists_alone_say",),
    ),
    Guard(
        "sweep: looked at again before it goes",
        "who has begun again meanwhile loses the node",
        "provisioning/cli.py",
        "        if not sweep.still_deletable(student.netid, netids):",
        "        if False:",
        (f"{SWEEP}::test_what_is_in_use_again_when_its_turn_comes_is_left_alone",),
    ),
    Guard(
        "activity: what runs in the background",
        "the guard stops a run that no kernel waits for",
        "provisioning/remote/activity.sh",
        "bool(busy or cpu >= CPU_PERCENT or",
        "bool(busy or",
        (f"{ACTIVITY}::test_what_goes_on_in_the_background_is_busy_by_the_cpu_that_it_uses",),
    ),
    Guard(
        "guard: who cannot be asked is not stopped",
        "a node whose GPU is away for a moment loses its kernels",
        "provisioning/remote/guard.sh",
        ") || exit 0\n",
        """) || told='{"running": true, "busy": false, "quiet_s": 99999}'\n""",
        (f"{ACTIVITY}::test_the_guard_stops_a_jupyter_that_is_not_used_and_no_other",),
    ),
    Guard(
        "lease: the route asks who looks",
        "anybody learns about the node",
        "labkit/lab/lease/handlers.py",
        "    @web.authenticated\n",
        "",
        (f"{LEASE}::test_it_tells_no_one_without_the_token",),
    ),
)
