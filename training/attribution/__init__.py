"""Attribution: which content stirred an order, and how many orders would have come anyway."""
