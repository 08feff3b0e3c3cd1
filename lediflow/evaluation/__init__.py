"""Quality of generated images and what they cost, with a record of how each number was measured."""
