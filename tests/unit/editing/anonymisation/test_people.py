"""Which person a face is: by file, by folder, or by a table."""

import pytest

from lediflow.editing.anonymisation.people import people_of, without_photograph
from lediflow.errors import UserError


def table(tmp_path, text):
    path = tmp_path / "people.csv"
    path.write_text(text, encoding="utf-8")
    return people_of(str(path))


def test_by_file_everybody_is_somebody_else():
    people = people_of("files")
    names = {people.person(name, face) for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg") for face in (0, 1)}
    assert len(names) == 6
    assert people.person("a/1.jpg", 0) == people.person("a/1.png", 0)


def test_by_folder_files_of_a_folder_share_a_person():
    people = people_of("folders")
    assert people.person("anna/1.jpg", 0) == people.person("anna/2.jpg", 0)
    assert (
        len({people.person("anna/1.jpg", 0), people.person("anna/1.jpg", 1), people.person("ben/1.jpg", 0)})
        == 3
    )


def test_in_a_folder_the_largest_face_is_the_same_person_wherever_it_stands():
    people = people_of("folders")
    assert people.persons("anna/1.jpg", [10, 90, 20])[1] == people.persons("anna/2.jpg", [80])[0]
    assert people.persons("anna/1.jpg", [10, 90, 20])[2] == people.persons("anna/2.jpg", [80, 70])[1]
    assert people_of("files").persons("a.jpg", [10, 90]) == ["file a face 0", "file a face 1"]


def test_a_table_names_persons_across_files_whatever_the_spelling(tmp_path):
    people = table(tmp_path, "person,file,face\nZoë,a/Zo\u00eb.jpg,0\nBen,a/Zo\u00eb.jpg,1\nZoë,b.jpg,0\n")
    assert people.person("a/Zoe\u0308.jpg", 0) == people.person("b.jpg", 0)
    assert people.person("a/Zo\u00eb.jpg", 1) != people.person("b.jpg", 0)
    assert people.known("b.jpg") != people.known("a/Zo\u00eb.jpg")
    with pytest.raises(UserError, match=r"no row for file b\.jpg, face 1"):
        people.person("b.jpg", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [("file,person\na.jpg,x\n", "no column face"),
     ("", "no column file, face, person"),
     ("file,face,person\na.jpg,one,x\n", "line 2"),
     ("file,face,person\na.jpg,0,\n", "line 2"),
     ("file,face,person\na.jpg,0\n", "line 2"),
     ("file,face,person\na.jpg,0,x\na.jpg,0,y\n", "give one person")],
)  # fmt: skip
def test_tables_that_say_nothing_or_too_much_are_refused(text, words, tmp_path):
    with pytest.raises(UserError, match=words):
        table(tmp_path, text)


def test_a_missing_table_and_one_that_is_not_text_are_refused(tmp_path):
    (tmp_path / "people.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "people.csv", tmp_path / "none.csv"):
        with pytest.raises(UserError, match="cannot be read"):
            people_of(str(path))


def test_rows_of_no_photograph_are_found(tmp_path):
    people = table(
        tmp_path, "file,face,person\na.png,0,anna\nZoe\u0308.png,0,zoe\nb.png,0,ben\nb.png,1,carl\n"
    )
    assert without_photograph(people, ["a.png", "Zo\u00eb.png", "c.png"]) == ["b.png"]
    assert without_photograph(people_of("files"), ["a.png"]) == []
