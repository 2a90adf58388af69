"""The contenders: lblatency, the floors that no drain can beat, and what people use instead."""
