"""For all tests: Ctrl-C works in the commands that they start, however the tests were started."""

import signal

# A shell without job control starts its background commands deaf to Ctrl-C, and children inherit
# that; with a handler here they start with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
