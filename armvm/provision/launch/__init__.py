"""From a request to a machine that is ready: ``create``, ``run``, ``golden create``."""
