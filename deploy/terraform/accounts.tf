# One account for each thing that acts. Roles are given on resources; on the project only where a service knows no other.

resource "google_service_account" "runner" {
  account_id   = "${local.name}-runner"
  display_name = "Headworks ${var.environment}: components of pipelines"
}

resource "google_service_account" "prediction" {
  account_id   = "${local.name}-predict"
  display_name = "Headworks ${var.environment}: prediction containers"
}

resource "google_service_account" "trigger" {
  account_id   = "${local.name}-trigger"
  display_name = "Headworks ${var.environment}: starts runs"
}

resource "google_service_account" "caller" {
  account_id   = "${local.name}-caller"
  display_name = "Headworks ${var.environment}: Pub/Sub and the scheduler, when they call the triggers"
}

resource "google_service_account" "ci" {
  account_id   = "${local.name}-ci"
  display_name = "Headworks ${var.environment}: publishes images and compiled jobs"
}

resource "google_service_account" "builder" {
  account_id   = "${local.name}-builder"
  display_name = "Headworks ${var.environment}: builds the triggers' functions"
}

# The runner.

resource "google_storage_bucket_iam_member" "runner" {
  bucket = google_storage_bucket.data.name
  role   = "roles/storage.objectUser"
  member = google_service_account.runner.member
}

resource "google_bigquery_dataset_iam_member" "runner" {
  dataset_id = google_bigquery_dataset.this.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.runner.member
}

resource "google_artifact_registry_repository_iam_member" "runner" {
  repository = google_artifact_registry_repository.this.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.runner.member
}

resource "google_project_iam_member" "runner" {
  for_each = toset(concat(
    [
      "roles/aiplatform.user",
      "roles/bigquery.jobUser",
      "roles/bigquery.readSessionUser",
      "roles/logging.logWriter",
    ],
    var.dataflow ? ["roles/dataflow.developer", "roles/dataflow.worker"] : [],
  ))

  project = var.project
  role    = each.key
  member  = google_service_account.runner.member
}

# Custom jobs and Dataflow's jobs that a component starts run as the same account.
resource "google_service_account_iam_member" "runner_as_runner" {
  service_account_id = google_service_account.runner.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.runner.member
}

# Prediction containers.

resource "google_storage_bucket_iam_member" "prediction" {
  bucket = google_storage_bucket.data.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.prediction.member
}

resource "google_project_iam_member" "prediction" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.prediction.member
}

resource "google_service_account_iam_member" "runner_as_prediction" {
  service_account_id = google_service_account.prediction.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.runner.member
}

# Triggers: may start runs as the runner, and no more of Vertex AI.

resource "google_project_iam_custom_role" "submitter" {
  role_id     = "${replace(local.name, "-", "_")}_submitter"
  title       = "Headworks ${var.environment}: starts pipeline jobs"
  permissions = ["aiplatform.pipelineJobs.create", "aiplatform.pipelineJobs.get"]
}

resource "google_project_iam_member" "trigger" {
  for_each = {
    submit = google_project_iam_custom_role.submitter.id
    log    = "roles/logging.logWriter"
  }

  project = var.project
  role    = each.value
  member  = google_service_account.trigger.member
}

resource "google_service_account_iam_member" "trigger_as_runner" {
  service_account_id = google_service_account.runner.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.trigger.member
}

resource "google_storage_bucket_iam_member" "trigger" {
  bucket = google_storage_bucket.control.name
  role   = "roles/storage.objectUser"
  member = google_service_account.trigger.member
}

# CI: writes images and compiled jobs.

resource "google_artifact_registry_repository_iam_member" "ci" {
  repository = google_artifact_registry_repository.this.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.ci.member
}

resource "google_storage_bucket_iam_member" "ci" {
  bucket = google_storage_bucket.control.name
  role   = "roles/storage.objectUser"
  member = google_service_account.ci.member
}

resource "google_project_iam_member" "ci" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.ci.member
}

# The builder of functions: reads the sources that Cloud Functions keeps, writes images and logs.

resource "google_artifact_registry_repository_iam_member" "builder" {
  repository = google_artifact_registry_repository.this.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.builder.member
}

resource "google_project_iam_member" "builder_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.builder.member
}

resource "google_project_iam_member" "builder_sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.builder.member

  condition {
    title      = "sources_of_functions"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${local.number}-${var.region}\")"
  }
}
