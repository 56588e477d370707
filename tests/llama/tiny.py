"""The model the real llama-server is tested with: half a megabyte of random weights, no training, nothing downloaded.

Llama architecture, 64 wide, 2 blocks, a vocabulary of 356 tokens: 3 special ones, the 256 bytes, the printable ASCII
characters, the two ChatML marks. The first dimension of every embedding is the same constant and no block writes to
it, so that the first column of the output matrix is a bias per token. It keeps bytes and control tokens from being
sampled (half a UTF-8 sequence makes the server answer 500) and favours the characters that end a JSON value. The
attention is strong, so that another prompt gives another reply.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

CONTEXT_TOKENS = 32768
_WIDTH, _BLOCKS, _HEADS, _FEED_FORWARD = 64, 2, 4, 128
_CONSTANT = 8.0
_ATTENTION_GAIN = 2.5
_PRINTABLE = ["\u2581", *(chr(code) for code in range(0x21, 0x7F))]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(path: Path, seed: int = 7) -> None:
    """Write the model to `path`; the same seed gives the same weights."""
    staged = path.with_suffix(".part")
    writer = GGUFWriter(staged, "llama")
    tokens, types = _vocabulary()
    _write_metadata(writer, tokens, types)
    _write_tensors(writer, np.random.default_rng(seed), tokens, types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    staged.replace(path)


def _vocabulary() -> tuple[list[str], list[TokenType]]:
    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    octets = [(f"<0x{code:02X}>", TokenType.BYTE) for code in range(256)]
    characters = [(character, TokenType.NORMAL) for character in _PRINTABLE]
    marks = [("<|im_start|>", TokenType.CONTROL), ("<|im_end|>", TokenType.CONTROL)]
    entries = [*special, *octets, *characters, *marks]
    return [text for text, _ in entries], [kind for _, kind in entries]


def _write_metadata(writer: GGUFWriter, tokens: list[str], types: list[TokenType]) -> None:
    writer.add_name("tiny random model for tests")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_BLOCKS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _write_tensors(writer: GGUFWriter, random: np.random.Generator, tokens: list[str], types: list[TokenType]) -> None:
    def weights(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        matrix: np.ndarray = gain / np.sqrt(columns) * random.standard_normal((rows, columns))
        return matrix.astype(np.float32)

    def silent_on_the_constant(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        matrix = weights(rows, columns, gain)
        matrix[0] = 0.0
        return matrix

    embedding = random.standard_normal((len(tokens), _WIDTH)).astype(np.float32)
    embedding[:, 0] = _CONSTANT
    writer.add_tensor("token_embd.weight", embedding)
    ones = np.ones(_WIDTH, dtype=np.float32)
    for block in range(_BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"blk.{block}.{name}.weight", weights(_WIDTH, _WIDTH, _ATTENTION_GAIN))
        writer.add_tensor(f"blk.{block}.attn_output.weight", silent_on_the_constant(_WIDTH, _WIDTH, _ATTENTION_GAIN))
        writer.add_tensor(f"blk.{block}.ffn_gate.weight", weights(_FEED_FORWARD, _WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_up.weight", weights(_FEED_FORWARD, _WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_down.weight", silent_on_the_constant(_WIDTH, _FEED_FORWARD))
        writer.add_tensor(f"blk.{block}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{block}.ffn_norm.weight", ones)
    writer.add_tensor("output_norm.weight", ones)
    output = weights(len(tokens), _WIDTH, 2.0)
    output[:, 0] = [_bias(text, kind) for text, kind in zip(tokens, types, strict=True)]
    writer.add_tensor("output.weight", output)


def _bias(text: str, kind: TokenType) -> float:
    if kind != TokenType.NORMAL:
        return -40.0
    return 1.0 if text in '"]}' else 0.0
