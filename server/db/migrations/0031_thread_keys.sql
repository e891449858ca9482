-- A thread is known by its reader and key; an id of its own is needed by nobody.
alter table feed_threads drop column id;
