"""What OpenTelemetry's conventions for generative AI call things, where we call them otherwise."""

from llm_integration.calling_config import split_model

_PROVIDERS = {"bedrock": "aws.bedrock"}


def provider_of(backend: str) -> str:
    """`gen_ai.provider.name` of a backend."""
    return _PROVIDERS.get(backend, backend)


def provider_and_model(model: str) -> tuple[str, str]:
    """`gen_ai.provider.name` and `gen_ai.request.model` of a model string."""
    backend, name = split_model(model)
    return provider_of(backend), name
