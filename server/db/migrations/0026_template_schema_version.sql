-- Of which shape the texts and their variables are, in the words of whoever keeps templates (DIC-014).
alter table template_revisions add column schema_version text not null default '1.0'
  check (length(schema_version) between 1 and 50);
alter table template_revisions add constraint version_length check (length(version) between 1 and 50);
