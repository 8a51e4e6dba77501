"""Tables of a gallery, as migrations by number: each is applied once, in order, and never changed afterwards.

Words in braces are types that the two databases name differently; a ``vector`` is a feature of half precision.
"""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE models (
        id {id}, hash TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, name TEXT NOT NULL, feature TEXT NOT NULL,
        width INTEGER NOT NULL, infrared TEXT NOT NULL, licence TEXT NOT NULL, data_terms TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('active', 'building')), added {real} NOT NULL
    );
    CREATE TABLE cameras (id {id}, name TEXT NOT NULL UNIQUE);
    CREATE TABLE tracks (
        id {id}, camera {int} NOT NULL REFERENCES cameras (id), name TEXT NOT NULL, UNIQUE (camera, name)
    );
    CREATE TABLE pictures (
        id {id}, sha256 TEXT NOT NULL, box TEXT NOT NULL, path TEXT NOT NULL,
        camera {int} NOT NULL REFERENCES cameras (id), track {int} REFERENCES tracks (id), time {real},
        modality INTEGER NOT NULL, quality {real} NOT NULL, person TEXT, added {real} NOT NULL, UNIQUE (sha256, box)
    );
    CREATE INDEX pictures_by_track ON pictures (track);
    CREATE INDEX pictures_by_person ON pictures (person);
    CREATE TABLE crops (picture {int} PRIMARY KEY REFERENCES pictures (id) ON DELETE CASCADE, data {blob} NOT NULL);
    CREATE TABLE features (
        id {id}, model {int} NOT NULL REFERENCES models (id) ON DELETE CASCADE,
        picture {int} NOT NULL REFERENCES pictures (id) ON DELETE CASCADE, vector {vector} NOT NULL,
        UNIQUE (picture, model)
    );
    CREATE TABLE files (
        digest TEXT PRIMARY KEY, size {int} NOT NULL, modified {int} NOT NULL, state TEXT NOT NULL,
        picture {int} REFERENCES pictures (id) ON DELETE CASCADE
    );
    CREATE INDEX files_by_picture ON files (picture);
    CREATE TABLE searches (
        id {id}, started {real} NOT NULL, ended {real} NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
        model TEXT NOT NULL, version {int} NOT NULL, modality INTEGER NOT NULL, filters TEXT NOT NULL
    );
    CREATE TABLE results (
        search {int} NOT NULL REFERENCES searches (id) ON DELETE CASCADE, place INTEGER NOT NULL,
        picture {int} NOT NULL REFERENCES pictures (id) ON DELETE CASCADE, score {real} NOT NULL, verdict TEXT NOT NULL,
        PRIMARY KEY (search, place)
    );
    CREATE INDEX results_by_picture ON results (picture);
    CREATE TABLE verdicts (
        id {id}, search {int} NOT NULL REFERENCES searches (id) ON DELETE CASCADE,
        picture {int} NOT NULL REFERENCES pictures (id) ON DELETE CASCADE,
        actor TEXT NOT NULL, time {real} NOT NULL, same INTEGER NOT NULL, note TEXT NOT NULL
    );
    CREATE INDEX verdicts_by_picture ON verdicts (picture);
    CREATE TABLE thresholds (
        model {int} NOT NULL REFERENCES models (id) ON DELETE CASCADE, query INTEGER NOT NULL,
        gallery INTEGER NOT NULL, content TEXT NOT NULL, PRIMARY KEY (model, query, gallery)
    );
    CREATE TABLE retention (class TEXT PRIMARY KEY, days {real} NOT NULL);
    CREATE TABLE users (
        id {id}, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
        token TEXT NOT NULL UNIQUE, added {real} NOT NULL
    );
    CREATE TABLE audit (
        id {id}, time {real} NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL,
        body TEXT NOT NULL, sealed TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
    );
    CREATE TABLE secrets (
        audit {int} PRIMARY KEY REFERENCES audit (id), search {int}, salt TEXT NOT NULL, content TEXT NOT NULL
    );
    CREATE TABLE tombstones (
        id {id}, picture {int} NOT NULL, digest TEXT NOT NULL UNIQUE, file TEXT NOT NULL,
        place INTEGER NOT NULL, size INTEGER NOT NULL, mark {blob} NOT NULL,
        feature TEXT NOT NULL, time {real} NOT NULL
    );
    """,
)
