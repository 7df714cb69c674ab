"""A process that looks into models beside the worker: on the CPU alone, without loading or running one."""
