"""Until when an item is new, where a request does not say: the one place that says so.

An item is new until it has GRADUATES_AT events of histories, or is GRADUATES_AFTER_DAYS old,
whichever comes first. Then it graduates: it leaves the floor of new items, and stands for itself.
Where the bundle's items have no created_at, events alone count. Knows no items.
"""

from serving.domain import NewItems
from serving.rank.explore import PRIOR_EVENTS

GRADUATES_AT = int(PRIOR_EVENTS)
"""From here on what was seen of an item weighs more than what the model says of it unseen."""
GRADUATES_AFTER_DAYS = 14.0
"""What few wanted in two weeks of being shown had its chance: others are new now."""


def rule(group: NewItems, *, has_ages: bool) -> NewItems:
    """What a group of new items asks for, in full. has_ages: whether items have a created_at."""
    if group.max_age_days or group.max_events is not None:
        return group
    return NewItems(GRADUATES_AFTER_DAYS if has_ages else 0.0, GRADUATES_AT - 1)
