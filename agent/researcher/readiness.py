"""The settings of an LLM searcher go in; whatever would stop it at its first call is raised before a study is begun.

A reference trial takes minutes, so the key and the model's name are checked before it, by one request that
costs nothing. A server that fails it, or knows no such request, is left to the first round.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import anthropic

from agent.researcher.client import connected
from agent.researcher.failures import LLMRefused, understand
from agent.researcher.program import program_path, read_program
from agent.researcher.settings import LLMSettings

ANSWER_SECONDS = 15.0


def require_ready(llm: Mapping[str, Any], program: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises SettingsError, ProgramError, and LLMRefused: no or a wrong key, an unknown model, no server."""
    settings = LLMSettings.from_mapping(llm)
    read_program(program_path(program))
    api = connected(settings, environment.get(settings.key_env))
    try:
        api.models.retrieve(settings.model, timeout=ANSWER_SECONDS)
    except Exception as error:
        trouble = understand(error)
        if trouble is None:
            raise
        if _unreachable(error):
            where = f"nothing answers at {api.base_url}: start the server there, or give llm.base_url"
            raise LLMRefused(f"{where} ({trouble.reason})") from error
        if settings.key_needed and _certain(error, settings.model):
            raise LLMRefused(f"{settings.model}: {trouble.reason}") from error


def _unreachable(error: Exception) -> bool:
    """No connection at all; one that is slow may have a bad day."""
    return isinstance(error, anthropic.APIConnectionError) and not isinstance(
        error, anthropic.APITimeoutError
    )


def _certain(error: Exception, model: str) -> bool:
    """A gateway may answer 404 to a request that it does not know; only one that names the model is meant."""
    unknown = isinstance(error, anthropic.NotFoundError) and model in str(error)
    return unknown or isinstance(error, anthropic.AuthenticationError)
