"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clips",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("sample_rate_hz", sa.BigInteger(), nullable=False),
        sa.Column("n_channels", sa.Integer(), nullable=False),
        sa.Column("n_samples", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clips")),
        sa.UniqueConstraint("sha256", name=op.f("uq_clips_sha256")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("sample_rate_hz", sa.Integer(), nullable=False),
        sa.Column("window_s", sa.Double(), nullable=False),
        sa.Column("n_classes", sa.Integer(), nullable=False),
        sa.Column("embedding_dim", sa.Integer(), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_models_name_version")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("is_abstract", sa.Boolean(), nullable=False),
        sa.Column("is_blacklisted", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("citation_uri", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("mid", name=op.f("uq_nodes_mid")),
    )
    op.create_table(
        "parameter_sets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("patch_hop_s", sa.Double(), nullable=False),
        sa.Column("score_floor", sa.SmallInteger(), nullable=False),
        sa.Column("detection_threshold", sa.SmallInteger(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parameter_sets")),
        sa.UniqueConstraint("digest", name=op.f("uq_parameter_sets_digest")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("flow_run_name", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("n_found", sa.Integer(), nullable=False),
        sa.Column("n_labelled", sa.Integer(), nullable=False),
        sa.Column("n_known", sa.Integer(), nullable=False),
        sa.Column("n_failed", sa.Integer(), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'crashed', 'cancelled')",
            name=op.f("ck_runs_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_table(
        "categories",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["models.id"],
            name=op.f("fk_categories_model_id_models"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_categories_node_id_nodes")
        ),
        sa.PrimaryKeyConstraint("model_id", "idx", name=op.f("pk_categories")),
        sa.UniqueConstraint("model_id", "node_id", name=op.f("uq_categories_model_id_node_id")),
    )
    op.create_table(
        "closure",
        sa.Column("ancestor_id", sa.Integer(), nullable=False),
        sa.Column("descendant_id", sa.Integer(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ancestor_id"],
            ["nodes.id"],
            name=op.f("fk_closure_ancestor_id_nodes"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["descendant_id"],
            ["nodes.id"],
            name=op.f("fk_closure_descendant_id_nodes"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("ancestor_id", "descendant_id", name=op.f("pk_closure")),
    )
    op.create_index(op.f("ix_closure_descendant_id"), "closure", ["descendant_id"], unique=False)
    op.create_table(
        "edges",
        sa.Column("parent_id", sa.Integer(), nullable=False),
        sa.Column("child_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["child_id"], ["nodes.id"], name=op.f("fk_edges_child_id_nodes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["nodes.id"], name=op.f("fk_edges_parent_id_nodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("parent_id", "child_id", name=op.f("pk_edges")),
    )
    op.create_table(
        "labellings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("clip_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("parameter_set_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("n_patches", sa.Integer(), nullable=True),
        sa.Column("scores_path", sa.Text(), nullable=True),
        sa.Column("scores_sha256", sa.String(length=64), nullable=True),
        sa.Column("score_dtype", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('claimed', 'done')", name=op.f("ck_labellings_status")),
        sa.ForeignKeyConstraint(
            ["clip_id"], ["clips.id"], name=op.f("fk_labellings_clip_id_clips"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_labellings_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["parameter_set_id"],
            ["parameter_sets.id"],
            name=op.f("fk_labellings_parameter_set_id_parameter_sets"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_labellings_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labellings")),
        sa.UniqueConstraint(
            "clip_id",
            "model_id",
            "parameter_set_id",
            name=op.f("uq_labellings_clip_id_model_id_parameter_set_id"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_labellings_model_id_parameter_set_id_is_current"),
        "labellings",
        ["model_id", "parameter_set_id", "is_current"],
        unique=False,
    )
    op.create_index(op.f("ix_labellings_run_id"), "labellings", ["run_id"], unique=False)
    op.create_index(
        "uq_labellings_current",
        "labellings",
        ["clip_id"],
        unique=True,
        sqlite_where=sa.text("is_current = 1"),
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "node_examples",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["nodes.id"],
            name=op.f("fk_node_examples_node_id_nodes"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", "position", name=op.f("pk_node_examples")),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path_digest", sa.LargeBinary(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("reason_detail", sa.Text(), nullable=True),
        sa.Column("clip_id", sa.Integer(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("meta", sa.JSON(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_read_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'identified', 'failed', 'missing')",
            name=op.f("ck_sources_status"),
        ),
        sa.ForeignKeyConstraint(["clip_id"], ["clips.id"], name=op.f("fk_sources_clip_id_clips")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("path_digest", name=op.f("uq_sources_path_digest")),
    )
    op.create_index(op.f("ix_sources_clip_id"), "sources", ["clip_id"], unique=False)
    op.create_index(op.f("ix_sources_user_id"), "sources", ["user_id"], unique=False)
    op.create_table(
        "clip_scores",
        sa.Column("labelling_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("peak", sa.SmallInteger(), nullable=False),
        sa.Column("mean", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["labelling_id"],
            ["labellings.id"],
            name=op.f("fk_clip_scores_labelling_id_labellings"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_clip_scores_node_id_nodes")
        ),
        sa.PrimaryKeyConstraint("labelling_id", "node_id", name=op.f("pk_clip_scores")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_clip_scores_node_id_peak_labelling_id"),
        "clip_scores",
        ["node_id", "peak", "labelling_id"],
        unique=False,
    )
    op.create_table(
        "detections",
        sa.Column("labelling_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("start_patch", sa.Integer(), nullable=False),
        sa.Column("end_patch", sa.Integer(), nullable=False),
        sa.Column("peak", sa.SmallInteger(), nullable=False),
        sa.Column("mean", sa.SmallInteger(), nullable=False),
        sa.Column("peak_patch", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["labelling_id"],
            ["labellings.id"],
            name=op.f("fk_detections_labelling_id_labellings"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_detections_node_id_nodes")
        ),
        sa.PrimaryKeyConstraint(
            "labelling_id", "node_id", "start_patch", name=op.f("pk_detections")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_items",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("estimated_s", sa.Double(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_run_items_run_id_runs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["sources.id"],
            name=op.f("fk_run_items_source_id_sources"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("pk_run_items")),
    )


def downgrade() -> None:
    for name in (
        "run_items",
        "detections",
        "clip_scores",
        "sources",
        "node_examples",
        "labellings",
        "edges",
        "closure",
        "categories",
        "runs",
        "parameter_sets",
        "nodes",
        "models",
        "clips",
    ):
        op.drop_table(name)
