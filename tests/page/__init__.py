"""The page in a real browser, before a stand-in for the daemon and before the real one."""
