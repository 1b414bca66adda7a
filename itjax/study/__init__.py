"""A blind human study: a page on which raters rank videos of several methods, and the scores of their answers."""
