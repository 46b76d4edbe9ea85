"""A chat template that says a goal by itself: for a conditioned policy that leaves for another server."""

import json

from alignment.types import Goal


def goal_template(template: str, goal: Goal) -> str:
    """The chat template with the goal put in front of every conversation, as ``rendering.with_goal`` puts it."""
    text = json.dumps(goal.text, ensure_ascii=False)  # a Jinja string too
    if goal.placement == "user":
        return _FIRST_USER.replace("GOAL", text) + template
    return _SYSTEM.replace("GOAL", text) + template


_SYSTEM = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set goal_turn = {'role': 'system', 'content': GOAL + '\\n\\n' + messages[0]['content']} -%}
{%- set messages = [goal_turn] + messages[1:] -%}
{%- else -%}
{%- set messages = [{'role': 'system', 'content': GOAL}] + messages -%}
{%- endif %}"""

_FIRST_USER = """\
{%- set at = 1 if messages[0]['role'] == 'system' else 0 -%}
{%- set goal_turn = {'role': messages[at]['role'], 'content': GOAL + '\\n\\n' + messages[at]['content']} -%}
{%- set messages = messages[:at] + [goal_turn] + messages[at + 1:] %}"""
