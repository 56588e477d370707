"""Which texts may never be shown."""

from llm_integration.calling.compose import key_names
from llm_integration.settings_sources import secret
from service.hooks.signature import SECRET_NAME
from service.settings import Settings
from service.store_room import without_password
from service.tokens import TOKEN_NAMES
from service.webhooks.endpoint import secrets_of_webhook


def secrets_of(settings: Settings) -> list[str]:
    """Every secret this process may come to know: none of them is ever logged."""
    keys = [secret(name) for name in key_names(settings.llm).values()]
    password = None if settings.database.embedded else without_password(settings.database.url)[1]
    tokens = [secret(name) for name in (*TOKEN_NAMES.values(), SECRET_NAME)]
    hooks = [value for hook in settings.service.webhooks for value in secrets_of_webhook(hook)]
    return [value for value in (*keys, password, *tokens, *hooks) if value]
