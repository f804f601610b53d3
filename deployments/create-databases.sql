-- Beside the database of labels: Prefect's own. PostgreSQL's image runs this once, on an empty volume.
CREATE DATABASE prefect;
