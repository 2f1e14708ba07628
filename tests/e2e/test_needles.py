"""Facts planted in a long text are found by the real service, however the work is cut: in chunks of
any size, over 1 to 4 ranks. Dense attention; test_tca.py has the sparse rules, whose selection
follows the chunks.

Usage: test_needles.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import sys
import unittest

from service import Service

import corpus

PROGRAM = sys.argv[1]
TOKENS = 16000
FACTS = 20
FOUND_MIN = 19
VARIANT_FACTS = slice(0, FACTS, 3)  # enough questions to see another answer, few enough to be quick


class Needles(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.book = corpus.build_tokens(TOKENS, facts=FACTS, seed=7)
        cls.data = cls.book.text.encode()

    def answers(self, facts, **settings):
        """Upload the book to a service of its own and ask for `facts`."""
        one = Service(PROGRAM, rule="dense", prefill_rule="dense", **settings)
        self.addCleanup(one.clean)
        document = one.upload(self.data, document_id="book")[-1].document
        self.assertGreater(document.token_count, TOKENS * 0.98)
        texts = [one.ask("book", fact.question).text for fact in facts]
        self.assertEqual(one.stop(), 0)
        return texts

    def test_facts_are_found_whatever_the_chunks_and_ranks(self):
        facts = self.book.facts
        texts = self.answers(facts, workers=2)
        missed = [(fact.sentence, text) for fact, text in zip(facts, texts)
                  if fact.answer not in text]
        self.assertLessEqual(len(missed), FACTS - FOUND_MIN, missed)

        for settings in ({"workers": 1, "chunk": 256}, {"workers": 3, "chunk": 1024},
                         {"workers": 4, "chunk": 16384}):
            with self.subTest(**settings):
                again = self.answers(facts[VARIANT_FACTS], **settings)
                self.assertEqual(again, texts[VARIANT_FACTS])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
