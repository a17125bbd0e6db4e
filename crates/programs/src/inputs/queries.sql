PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, region INTEGER, people INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO city SELECT i, printf('%08x-city-%d', i * 2654435761 % 4294967296, i), i % 97, i * 7919 % 100003 FROM n;
CREATE INDEX city_region ON city (region, people);
SELECT region, count(*), sum(people), max(name) FROM city GROUP BY region ORDER BY sum(people) DESC LIMIT 20;
SELECT count(*) FROM city a JOIN city b ON b.region = a.region AND b.people = a.people + 1;
SELECT group_concat(name, ' ') FROM (SELECT name FROM city ORDER BY name LIMIT 50);
DELETE FROM city WHERE people % 3 = 0;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), length(group_concat(name)) FROM city;
