# What runs read and write.
resource "google_storage_bucket" "data" {
  name                        = "${var.project}-${local.name}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value
    }
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age            = 14
      matches_prefix = ["temp/", "staging/"]
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]

  lifecycle {
    prevent_destroy = true
  }
}

# Compiled jobs and what the triggers have started: apart, so that neither triggers nor CI see any data.
resource "google_storage_bucket" "control" {
  name                        = "${var.project}-${local.name}-control"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value
    }
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90
      with_state                 = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

resource "google_bigquery_dataset" "this" {
  dataset_id                 = replace(local.name, "-", "_")
  location                   = var.region
  description                = "Predictions and dead letters of Headworks"
  delete_contents_on_destroy = false

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

resource "google_artifact_registry_repository" "this" {
  repository_id = local.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of Headworks"
  kms_key_name  = var.kms_key

  docker_config {
    immutable_tags = true
  }

  # Jobs name images by digest, so what was released stays; what was only tried goes after a month.
  cleanup_policies {
    id     = "released"
    action = "KEEP"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["release-"]
    }
  }

  cleanup_policies {
    id     = "candidates"
    action = "DELETE"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["candidate-"]
      older_than   = "2592000s"
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

# Encryption is done by the services' own accounts.
resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = var.kms_key == null ? {} : {
    storage           = data.google_storage_project_service_account.this.email_address
    bigquery          = "bq-${local.number}@bigquery-encryption.iam.gserviceaccount.com"
    artifact_registry = "service-${local.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    vertex_ai         = "service-${local.number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
  }

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"
}
