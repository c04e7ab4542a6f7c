# SPDX-License-Identifier: BSD-3-Clause
"""The ways in which a guest test ends early."""


class SetupError(Exception):
    """The machinery could not be made ready: no test can run."""


class Failure(Exception):
    """A test's expectation was not met; the tests after it still make sense."""


class Lost(Failure):
    """The guest, QEMU or the server is gone or answers no longer: the rest of the case cannot run."""


class Skip(Exception):
    """The test does not apply here; the text says why."""


def expect(condition, text):
    """Fails the running test with `text` unless `condition` holds."""
    if not condition:
        raise Failure(text)


def expect_equal(what, got, wanted):
    """Fails the running test when the two differ, naming both."""
    if got != wanted:
        raise Failure(f"{what} is {got!r}, should be {wanted!r}")
