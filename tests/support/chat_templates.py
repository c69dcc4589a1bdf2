"""Chat templates in the manners of several families, with the special tokens of `support.checkpoints`."""

from __future__ import annotations

OPENING = "{{ '<s>' }}{% for m in messages %}<|{{ m.role }}|>\n"
CLOSING = "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}'
)

PLAIN = OPENING + "{{ m.content }}" + CLOSING  # knows nothing but text
TOOLS = OPENING + "{% if m.content %}{{ m.content }}{% endif %}" + CALLS + CLOSING  # Qwen's manner
CALLS_ALONE = (  # DeepSeek's: calls are written only where there is no content
    OPENING + "{% if m.content %}{{ m.content }}{% else %}" + CALLS + "{% endif %}" + CLOSING
)
PARTS = (  # Llama 4's and Gemma 3's: reads a list of parts
    OPENING + "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content or [] %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}" + CALLS + CLOSING
)
KNOWN_ROLES = (  # Qwen's: turns of other roles are left out
    "{{ '<s>' }}{% for m in messages %}{% if m.role in ('system', 'user', 'assistant', 'tool') %}<|{{ m.role }}|>\n"
    "{{ m.content or '' }}" + CALLS + "<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STRICT = (  # Mistral's and Gemma's: other roles are an error
    "{{ '<s>' }}{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('only user and assistant') }}{% endif %}<|{{ m.role }}|>\n{{ m.content or '' }}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THINKS = (  # Qwen 3's: reasoning is written, too
    OPENING + "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content or '' }}" + CALLS + CLOSING
)
ITEMS = (  # walks through the arguments, so they have to be an object
    OPENING + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}("
    "{% for name, value in c.function.arguments.items() %}{{ name }}={{ value }} {% endfor %}){% endfor %}" + CLOSING
)
