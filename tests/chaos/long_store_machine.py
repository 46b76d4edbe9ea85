"""As ``test_store_machine``, for long enough that a sweep without any one of its precautions is seen to do harm."""

from test_store_machine import SweptStore, histories

TestLongSweptStore = SweptStore.TestCase
TestLongSweptStore.settings = histories(1000)
