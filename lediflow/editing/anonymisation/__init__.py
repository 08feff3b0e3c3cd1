"""Anonymisation of faces: inside a mask, new pixels from a latent that a secret key and a person's name determine.

config          options of the commands `anonymise` and `anonymity`
keys            the key file; key and person -> w, and digests that only the key's owner can compute
people          which person a face shows: from file names, folders or a table
sources         the photographs of a folder and their masks
detection       where faces are, without masks
faces           masks or boxes -> faces, each with the square around it that the models see
photographs     bytes of a photograph, or the reason why it is passed over
surrogates      w, mixed with the face's own w below strength 1 -> z -> new pixels by eq. 7
folder          numbered pictures and edit.json, photograph by photograph, so that a killed run continues
finding         options checked before models are loaded; photographs and their faces
run             a folder of photographs from beginning to end
anonymity       how well surrogates hide persons: a gallery, ways to hide faces, the report
embedding       128 numbers of a face by which persons are recognised
measures        re-identification, detection, pose and expression

Source: arXiv:2505.20723, section 4.2 (w plus a small random vector) and eq. 7.
"""
