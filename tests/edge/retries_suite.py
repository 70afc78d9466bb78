"""What every backend of `Retries` does. A backend's test gives the `retries` fixture."""

from sidecar.core.identity import Identity

ANN = Identity("k_ann", "app-ann", "cust-ann", "free")
ANN_S_OTHER_KEY = Identity("k_two", "app-two", "cust-ann", "free")
BOB = Identity("k_bob", "app-bob", "cust-bob", "free")
DAY_US = 86_400_000_000
ONE, TWO, THREE = (b"%026d" % number for number in (1, 2, 3))


def ask(retries, id_, key=b"POST /pay 8e03978e", who=ANN, window_us=DAY_US):
    told = []
    retries.first(who, key, window_us, id_, told.append)
    (said,) = told
    return said


class RetriesSuite:
    def test_who_comes_first_with_a_key_is_first_and_nobody_after(self, retries):
        # Mutation: whoever asks is first.
        assert [ask(retries, id_) for id_ in (ONE, TWO, THREE)] == [True, False, False]

    def test_the_same_exchange_asked_again_is_first_again(self, retries):
        # An answer that was lost does not make a retry of the first attempt. Mutation: any key that is held says no.
        assert [ask(retries, id_) for id_ in (ONE, ONE, TWO, ONE)] == [True, True, False, True]

    def test_another_key_is_another_request(self, retries):
        assert [ask(retries, ONE, b"a"), ask(retries, TWO, b"b"), ask(retries, THREE, b"a")] == [True, True, False]

    def test_a_key_is_its_customer_s_alone(self, retries):
        # Mutation: the digest is of the key alone, so that customers take each other's first attempts.
        assert [ask(retries, ONE), ask(retries, TWO, who=BOB), ask(retries, THREE, who=ANN_S_OTHER_KEY)] == [
            True,
            True,
            False,
        ]

    def test_a_first_attempt_that_came_to_nothing_leaves_the_next_to_be_first(self, retries):
        # Mutation: `forget` does nothing, so that a request whose first attempt failed is never paid for.
        ask(retries, ONE)
        retries.forget(ANN, b"POST /pay 8e03978e", ONE)
        assert [ask(retries, TWO), ask(retries, THREE)] == [True, False]

    def test_only_who_holds_a_key_can_make_it_forgotten(self, retries):
        # Mutation: `forget` looks at no id, so that a slow first attempt frees the key of the one that came after it.
        ask(retries, ONE)
        retries.forget(ANN, b"POST /pay 8e03978e", TWO)
        retries.forget(BOB, b"POST /pay 8e03978e", ONE)
        retries.forget(ANN, b"POST /pay another", ONE)
        assert not ask(retries, THREE)

    def test_a_key_may_be_any_bytes(self, retries):
        odd = bytes(range(256)) * 40
        assert [ask(retries, ONE, odd), ask(retries, TWO, odd), ask(retries, THREE, b"")] == [True, False, True]
