"""Creates machines and waits until they are ready: ``create``, ``run``, ``golden create``."""
