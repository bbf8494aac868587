"""What the process's environment tells about where it runs. Imports no Ray, so that it costs nothing to ask."""

import os


def in_ray_job() -> bool:
    """Does this process run under ``ray job submit``? (Ray leaves the job's configuration to its entry point.)"""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
