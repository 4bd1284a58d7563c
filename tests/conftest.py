"""For all tests: Ctrl-C works in the commands that they start, however the tests were started."""

import signal

import pytest

# A shell without job control starts its background commands deaf to Ctrl-C, and children inherit
# that; with a handler here they start with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test printed goes to another process, as UTF-8: names of files that are not are written out."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def weak_corpus(tmp_path_factory):
    """The folder of a tiny corpus for training from weak labels."""
    from weak_corpus import write_corpus

    return write_corpus(tmp_path_factory.mktemp("weak"))
